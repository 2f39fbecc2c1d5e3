# Two stages: the first builds a virtual environment, the second holds it and nothing that builds.
# A release that must be reproducible pins the base: --build-arg PYTHON_TAG=3.11-slim-bookworm@sha256:...
ARG PYTHON_TAG=3.11-slim-bookworm

FROM python:${PYTHON_TAG} AS build
ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_INPUT=1 \
    PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
# Dependencies first, from the lock file and with hashes: this layer changes only when the lock file does.
COPY requirements/runtime.txt requirements/build.txt requirements/
RUN python -m venv --without-pip /opt/seawall \
 && python -m pip --python /opt/seawall/bin/python install --require-hashes --only-binary=:all: \
      -r requirements/runtime.txt \
 && python -m pip install --require-hashes --only-binary=:all: -r requirements/build.txt
COPY pyproject.toml README.md LICENSE ./
COPY gateway gateway
RUN python -m pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
 && python -m pip --python /opt/seawall/bin/python install --no-index --no-deps /wheels/*.whl \
 && /opt/seawall/bin/seawall --help > /dev/null

FROM python:${PYTHON_TAG} AS runtime
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="seawall" \
      org.opencontainers.image.description="Reverse proxy that keeps wallets, bots and services working when an RPC provider or exchange goes down" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}"
ENV PATH=/opt/seawall/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
COPY --from=build /opt/seawall /opt/seawall
# A number, not a name, so that Kubernetes can verify runAsNonRoot. It owns no file in the image.
USER 10001:10001
WORKDIR /tmp
EXPOSE 4000 4001
STOPSIGNAL SIGTERM
# Not through a proxy from the environment: the question is to this container.
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 \
  CMD ["python", "-c", "from urllib.request import ProxyHandler, build_opener; build_opener(ProxyHandler({})).open('http://127.0.0.1:4000/livez', timeout=2).close()"]
ENTRYPOINT ["seawall"]
CMD ["serve", "/etc/seawall/gateway.yaml"]
