# One image for API and worker: the command decides. Writes nowhere but to /tmp, needs no rights and no root.
#   docker build -t rejoin .        (--build-arg EXTRAS='otel langchain': with providers of that kind, too)
FROM python:3.13-slim AS build
# With traces, so that a variable is all that they take.
ARG EXTRAS=otel
WORKDIR /build
COPY pyproject.toml requirements.txt deploy/build.sh ./
RUN sh build.sh /venv

FROM python:3.13-slim
RUN python -m pip uninstall --yes --root-user-action ignore pip
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 REJOIN_WORKER_PORT=9000
WORKDIR /app
COPY --from=build /venv /venv
COPY shared shared
COPY api api
COPY worker worker
COPY rejoin rejoin
COPY deploy/__init__.py deploy/doctor.py deploy/healthy.py deploy/local.py deploy/run.py deploy/
RUN python -m compileall -q shared api worker rejoin deploy
# A number, so that Kubernetes' runAsNonRoot can see that it is not root.
USER 10001:10001
EXPOSE 8000 9000
# Both end in order on it: streams end over two seconds, jobs are handed over. In exec form it reaches them without a shell.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=3s --start-period=20s CMD ["python", "-IS", "deploy/healthy.py"]
# No access log: the proxy has one. Idle connections stay for longer than the proxy keeps them. The graceful stop is bounded, as
# who reads a long answer stays. The worker: ["python", "-m", "worker"].
CMD ["uvicorn", "api.main:app", "--host", "0.0.0.0", "--port", "8000", "--no-access-log", "--timeout-keep-alive", "75", "--timeout-graceful-shutdown", "5"]
