# trtpack-runtime and trtpack-tools for a device, without a bundle; mount one at /bundle/bundle.tar.
#   docker buildx bake -f docker/bake.hcl runtime
# The context is the repository. What bake.hcl gives as BASE, PACKAGES, DEBS and REPOSITORY is that
# of targets/stacks. An exact base, by its digest: --build-arg BASE=IMAGE@sha256:...
ARG BASE=nvcr.io/nvidia/cuda:13.0.1-base-ubuntu24.04
ARG BUILD_BASE=debian:bookworm-slim

FROM ${BUILD_BASE} AS wheels
# hadolint ignore=DL3008
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv /opt/build \
    && /opt/build/bin/pip install --no-cache-dir build==1.6.1 hatchling==1.33.0
WORKDIR /source
COPY runtime_py runtime_py
RUN for project in runtime_py runtime_py/tools; do \
        /opt/build/bin/python -m build --wheel --no-isolation --outdir /wheels "$project" || exit 1; \
    done

FROM ${BASE} AS base
# hadolint ignore=DL3008
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        ca-certificates libgomp1 python3 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --user-group --create-home --groups video trtpack \
    && install -d -o trtpack -g trtpack /var/cache/trtpack
ARG REPOSITORY=""
ARG KEY=""
ARG DEBS=""
# hadolint ignore=DL3008,SC2086
RUN if [ -n "${DEBS}" ]; then \
        mkdir -p /etc/apt/keyrings \
        && python3 -c 'import sys, urllib.request as u; u.urlretrieve(*sys.argv[1:])' \
            "${KEY}" /etc/apt/keyrings/trtpack.asc \
        && echo "deb [signed-by=/etc/apt/keyrings/trtpack.asc] ${REPOSITORY}" \
            > /etc/apt/sources.list.d/trtpack.list \
        && apt-get update \
        && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends ${DEBS} \
        && rm -rf /var/lib/apt/lists/*; \
    fi

FROM base AS install
# hadolint ignore=DL3008
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv --system-site-packages /opt/trtpack
ARG TORCH=""
ARG TORCH_INDEX=https://pypi.org/simple
RUN if [ -n "${TORCH}" ]; then \
        /opt/trtpack/bin/pip install --no-cache-dir --index-url "${TORCH_INDEX}" "${TORCH}"; \
    fi
ARG PACKAGES=""
COPY --from=wheels /wheels /wheels
# hadolint ignore=SC2086
RUN /opt/trtpack/bin/pip install --no-cache-dir /wheels/*.whl ${PACKAGES}

FROM base AS runtime
COPY --from=install /opt/trtpack /opt/trtpack
ENV PATH="/opt/trtpack/bin:${PATH}" XDG_CACHE_HOME=/var/cache PYTHONUNBUFFERED=1
USER 10001:10001
WORKDIR /home/trtpack
HEALTHCHECK --interval=10m --timeout=5m --start-period=15m --retries=2 \
    CMD ["trtpack", "run", "/bundle/bundle.tar", "--no-bench", "--quiet"]
ENTRYPOINT ["trtpack"]
CMD ["doctor"]
