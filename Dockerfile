# Octet and what it needs, and nothing else: see docs/image.md, also for how BASE is pinned.
ARG BASE=docker.io/library/python:3.11-slim-bookworm
# Where the base has neither a shell nor pip, another one that has the same Python at the same path.
ARG BUILD_BASE=${BASE}

FROM ${BUILD_BASE} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ONLY_BINARY=:all: PYTHONDONTWRITEBYTECODE=1
WORKDIR /build
# hadolint ignore=DL3008  # of Debian's signed packages the one of the day will do: nothing of it reaches the image
RUN apt-get update \
    && apt-get install --yes --no-install-recommends binutils \
    && rm -rf /var/lib/apt/lists/*
COPY deploy/image/build.txt deploy/image/requirements.txt locks/
RUN python3 -m venv tools \
    && tools/bin/pip install --require-hashes --no-compile -r locks/build.txt \
    && python3 -m venv --without-pip /opt/venv \
    && tools/bin/pip --python /opt/venv/bin/python install --require-hashes --no-compile -r locks/requirements.txt
COPY pyproject.toml README.md LICENSE ./
COPY config/demo.yaml config/
COPY proxy proxy
# hadolint ignore=DL3013  # the version is that of the tree
RUN tools/bin/pip wheel --no-deps --no-build-isolation --wheel-dir wheels . \
    && tools/bin/pip --python /opt/venv/bin/python install --no-index --find-links wheels --no-deps --no-compile octet \
    && tools/bin/cyclonedx-py environment --output-reproducible --pyproject pyproject.toml \
        --output-format JSON --output-file sbom.cdx.json /opt/venv/bin/python
# Debug symbols are two fifths of what was installed. A read-only file system can keep no bytecode, so it is made here.
RUN find /opt/venv -type f -name '*.so*' -exec strip --strip-unneeded {} + \
    && find /opt/venv/lib -type f \( -name '*.pyx' -o -name '*.pxd' -o -name '*.pyi' -o -name '*.[ch]' \) -delete \
    && find /opt/venv/bin -type f ! -name octet -delete \
    && python3 -m compileall -q --invalidation-mode unchecked-hash /opt/venv/lib

FROM ${BASE}
ARG VERSION=0.1.0
ARG REVISION=
ARG SOURCE=
LABEL org.opencontainers.image.title="Octet" \
    org.opencontainers.image.description="An OpenAI-compatible sidecar: one base URL in front of eight kinds of upstream" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}" \
    org.opencontainers.image.source="${SOURCE}"
COPY --from=build /build/LICENSE /build/sbom.cdx.json /usr/share/doc/octet/
COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PYTHONFAULTHANDLER=1
USER 10001:10001
EXPOSE 8080 8081
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 CMD ["octet", "healthcheck"]
ENTRYPOINT ["octet"]
CMD ["serve", "/etc/octet/octet.yaml", "--admin", "0.0.0.0:8081"]
