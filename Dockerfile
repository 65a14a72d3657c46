# One image for the API and the worker; compose.yaml chooses by command.
FROM python:3.13-slim AS build
WORKDIR /build
COPY pyproject.toml requirements.txt ./
# Every file of the lock is fetched and checked against its hash; of these, only what pyproject.toml asks for at run time
# (no test tools) is installed, without any further download.
RUN pip download --no-cache-dir --require-hashes --only-binary :all: --dest wheels -r requirements.txt
# With traces, so that a variable is all that they take.
RUN python -c 'import tomllib; project = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
        print(*project["dependencies"], *project["optional-dependencies"]["otel"], sep="\n")' > runtime.in \
    && python -m venv /venv \
    && /venv/bin/pip install --no-cache-dir --no-index --find-links wheels -r runtime.in \
    && /venv/bin/pip uninstall --yes pip

FROM python:3.13-slim
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /app
COPY --from=build /venv /venv
COPY api api
COPY worker worker
COPY shared shared
COPY rejoin rejoin
COPY deploy deploy
# A number, so that Kubernetes' runAsNonRoot can see that it is not root.
USER 10001:10001
EXPOSE 8000
# No access log: it would show the tickets in events_url. The graceful stop is bounded, as who reads a long answer stays.
CMD ["uvicorn", "api.main:app", "--host", "0.0.0.0", "--port", "8000", "--no-access-log", "--timeout-graceful-shutdown", "5"]
