# trtpack for people who build bundles: on the CPU alone (cpu), or with a GPU's TensorRT (ngc).
#   docker buildx bake -f docker/bake.hcl host
# The context is the repository. Exact bases, by their digests: --build-arg CPU_BASE=IMAGE@sha256:...
ARG CPU_BASE=debian:bookworm-slim
ARG NGC_BASE=nvcr.io/nvidia/tensorrt:25.09-py3

FROM ${CPU_BASE} AS wheels
# hadolint ignore=DL3008
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv /opt/build \
    && /opt/build/bin/pip install --no-cache-dir build==1.6.1 hatchling==1.33.0
WORKDIR /source
COPY pyproject.toml README.md LICENSE CHANGELOG.md ./
COPY packager packager
COPY targets targets
COPY runtime_py runtime_py
RUN for project in runtime_py runtime_py/tools .; do \
        /opt/build/bin/python -m build --wheel --no-isolation --outdir /wheels "$project" || exit 1; \
    done

# --- the CPU alone: engines for RTX GPUs with EXTRAS=rtx, all others are left to their devices ------
FROM ${CPU_BASE} AS cpu-base
# hadolint ignore=DL3008
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        g++ openssl python3 python3-dev \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --user-group --create-home trtpack

FROM cpu-base AS cpu-install
# hadolint ignore=DL3008
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends python3-venv \
    && rm -rf /var/lib/apt/lists/*
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN python3 -m venv /opt/trtpack \
    && /opt/trtpack/bin/pip install --no-cache-dir --index-url "${TORCH_INDEX}" torch==2.13.0
COPY --from=wheels /wheels /wheels
ARG EXTRAS=images
RUN /opt/trtpack/bin/pip install --no-cache-dir /wheels/trtpack_*.whl \
        "$(echo /wheels/trtpack-*.whl)[${EXTRAS}]"

FROM cpu-base AS cpu
COPY --from=cpu-install /opt/trtpack /opt/trtpack
COPY docker/smoke docker/smoke_model.py /opt/trtpack/share/
ENV PATH="/opt/trtpack/bin:${PATH}" PYTHONUNBUFFERED=1
USER 10001:10001
WORKDIR /home/trtpack
HEALTHCHECK --interval=30m --timeout=10m --start-period=10m --retries=2 \
    CMD ["/opt/trtpack/share/smoke"]
ENTRYPOINT ["trtpack"]
CMD ["--help"]

# --- with NVIDIA's TensorRT: engines for the GPU of the host, --target native --------------------------
FROM ${NGC_BASE} AS ngc-base
# hadolint ignore=DL3008
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        g++ openssl python3 python3-dev \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --user-group --create-home trtpack

FROM ngc-base AS ngc-install
# hadolint ignore=DL3008
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends python3-venv \
    && rm -rf /var/lib/apt/lists/*
ARG CUDA_TORCH_INDEX=https://download.pytorch.org/whl/cu130
RUN python3 -m venv --system-site-packages /opt/trtpack \
    && /opt/trtpack/bin/pip install --no-cache-dir --index-url "${CUDA_TORCH_INDEX}" torch==2.13.0
COPY --from=wheels /wheels /wheels
ARG EXTRAS=images
RUN /opt/trtpack/bin/pip install --no-cache-dir /wheels/trtpack_*.whl \
        "$(echo /wheels/trtpack-*.whl)[${EXTRAS}]" \
    && /opt/trtpack/bin/python -c "from importlib.util import find_spec; assert find_spec('tensorrt')"

FROM ngc-base AS ngc
COPY --from=ngc-install /opt/trtpack /opt/trtpack
COPY docker/smoke docker/smoke_model.py /opt/trtpack/share/
ENV PATH="/opt/trtpack/bin:${PATH}" PYTHONUNBUFFERED=1
USER 10001:10001
WORKDIR /home/trtpack
HEALTHCHECK --interval=30m --timeout=10m --start-period=10m --retries=2 \
    CMD ["/opt/trtpack/share/smoke"]
ENTRYPOINT ["trtpack"]
CMD ["--help"]
