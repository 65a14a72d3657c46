"""The page at `/`: static files, and a policy under which nothing else can run in it."""

from pathlib import Path
from typing import Final

from fastapi import APIRouter, FastAPI
from starlette.responses import FileResponse
from starlette.staticfiles import StaticFiles

router = APIRouter()

FOLDER: Final = Path(__file__).parent.parent / "page"

HEADERS: Final = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}


@router.get("/", include_in_schema=False)
async def page() -> FileResponse:
    return FileResponse(FOLDER / "index.html", headers=HEADERS)


def mount_files(app: FastAPI) -> None:
    app.mount("/page", StaticFiles(directory=FOLDER), name="page")
