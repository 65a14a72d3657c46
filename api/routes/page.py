"""The pages at `/` and `/ops`: static files, and a policy under which nothing else can run in it."""

from pathlib import Path
from typing import Any, Final

from fastapi import APIRouter, FastAPI
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles

router = APIRouter()

FOLDER: Final = Path(__file__).parent.parent / "page"

FILE_HEADERS: Final = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-cache"}
"""Asked for again after every upgrade: a page and its modules belong together."""

HEADERS: Final = {
    **FILE_HEADERS,
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
}


@router.get("/", include_in_schema=False)
async def page() -> FileResponse:
    return FileResponse(FOLDER / "index.html", headers=HEADERS)


@router.get("/ops", include_in_schema=False)
async def ops() -> FileResponse:
    """The operators' page. It tells nothing by itself: `/v1/ops` does, to those with the right."""
    return FileResponse(FOLDER / "ops.html", headers=HEADERS)


class PageFiles(StaticFiles):
    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers.update(FILE_HEADERS)
        return response


def mount_files(app: FastAPI) -> None:
    app.mount("/page", PageFiles(directory=FOLDER), name="page")
