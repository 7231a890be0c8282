# Every image of this folder: docker buildx bake -f docker/bake.hcl [GROUP or TARGET], from the
# repository's root. Bases and packages are those of targets/stacks, where their sources are.
# An exact base: --set runtime-jetpack-6.args.BASE=nvcr.io/nvidia/l4t-tensorrt@sha256:...

variable "REGISTRY" {
  default = "trtpack"
}

variable "VERSION" {
  default = "0.1.0"
}

group "default" {
  targets = ["host", "runtime"]
}

group "host" {
  targets = ["host-cpu", "host-ngc"]
}

group "runtime" {
  targets = [
    "runtime-cpu",
    "runtime-jetpack-6-0",
    "runtime-jetpack-6",
    "runtime-jetpack-7",
    "runtime-jetpack-7-2",
    "runtime-datacenter",
    "runtime-datacenter-11",
    "runtime-rtx",
  ]
}

target "_common" {
  context = "."
  labels = {
    "org.opencontainers.image.title"    = "trtpack"
    "org.opencontainers.image.version"  = VERSION
    "org.opencontainers.image.licenses" = "Apache-2.0"
  }
}

target "host-cpu" {
  inherits   = ["_common"]
  dockerfile = "docker/host.Dockerfile"
  target     = "cpu"
  platforms  = ["linux/amd64"]
  args       = { CPU_BASE = "debian:bookworm-slim" }
  tags       = ["${REGISTRY}/host:${VERSION}-cpu"]
}

target "host-ngc" {
  inherits   = ["_common"]
  dockerfile = "docker/host.Dockerfile"
  target     = "ngc"
  platforms  = ["linux/amd64"]
  args       = { NGC_BASE = "nvcr.io/nvidia/tensorrt:25.09-py3" }
  tags       = ["${REGISTRY}/host:${VERSION}-ngc"]
}

target "_runtime" {
  inherits   = ["_common"]
  dockerfile = "docker/runtime.Dockerfile"
  target     = "runtime"
}

target "runtime-cpu" {
  inherits  = ["_runtime"]
  platforms = ["linux/amd64", "linux/arm64"]
  tags      = ["${REGISTRY}/runtime:${VERSION}-cpu"]
  args = {
    BASE        = "debian:bookworm-slim"
    TORCH       = "torch==2.13.0"
    TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
  }
}

target "runtime-jetpack-6-0" {
  inherits  = ["_runtime"]
  platforms = ["linux/arm64"]
  tags      = ["${REGISTRY}/runtime:${VERSION}-jetpack-6.0"]
  args      = { BASE = "nvcr.io/nvidia/l4t-tensorrt:r8.6.2-runtime" }
}

# JetPack 6.1 to 6.2.2
target "runtime-jetpack-6" {
  inherits  = ["_runtime"]
  platforms = ["linux/arm64"]
  tags      = ["${REGISTRY}/runtime:${VERSION}-jetpack-6"]
  args = {
    BASE     = "nvcr.io/nvidia/l4t-tensorrt:r10.3.0-runtime"
    PACKAGES = "numpy<2"
  }
}

# JetPack 7.0 and 7.1
target "runtime-jetpack-7" {
  inherits  = ["_runtime"]
  platforms = ["linux/arm64"]
  tags      = ["${REGISTRY}/runtime:${VERSION}-jetpack-7"]
  args = {
    BASE     = "nvcr.io/nvidia/cuda:13.0.1-base-ubuntu24.04"
    PACKAGES = "tensorrt-cu13==10.13.3.9"
  }
}

target "runtime-jetpack-7-2" {
  inherits  = ["_runtime"]
  platforms = ["linux/arm64"]
  tags      = ["${REGISTRY}/runtime:${VERSION}-jetpack-7.2"]
  args = {
    BASE       = "nvcr.io/nvidia/cuda:13.2.1-base-ubuntu24.04"
    DEBS       = "python3-libnvinfer=10.16.2.10-1+cuda13.2"
    REPOSITORY = "https://repo.download.nvidia.com/jetson/common r39.2 main"
    KEY        = "https://repo.download.nvidia.com/jetson/jetson-ota-public.asc"
  }
}

target "runtime-datacenter" {
  inherits  = ["_runtime"]
  platforms = ["linux/amd64"]
  tags      = ["${REGISTRY}/runtime:${VERSION}-tensorrt-10.16"]
  args = {
    BASE     = "nvcr.io/nvidia/cuda:13.0.1-base-ubuntu24.04"
    PACKAGES = "tensorrt-cu13==10.16.1.11"
  }
}

target "runtime-datacenter-11" {
  inherits  = ["_runtime"]
  platforms = ["linux/amd64", "linux/arm64"]
  tags      = ["${REGISTRY}/runtime:${VERSION}-tensorrt-11.4"]
  args = {
    BASE     = "nvcr.io/nvidia/cuda:13.0.1-base-ubuntu24.04"
    PACKAGES = "tensorrt-cu13==11.4.0.106"
  }
}

target "runtime-rtx" {
  inherits  = ["_runtime"]
  platforms = ["linux/amd64", "linux/arm64"]
  tags      = ["${REGISTRY}/runtime:${VERSION}-tensorrt-rtx-1.7"]
  args = {
    BASE     = "nvcr.io/nvidia/cuda:13.0.1-base-ubuntu24.04"
    PACKAGES = "tensorrt-rtx==1.7.1.116"
  }
}
