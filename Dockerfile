# Training and restoring on NVIDIA GPUs: docs/cluster.md says how to build and run the image.
#
# The base is PyTorch's own runtime image, which has torch, CUDA and cuDNN already. CUDA 12.8 knows GPUs up to Blackwell
# and runs on every driver since 525, whereas current torch of the package index is built with CUDA 13 and needs 580.
FROM pytorch/pytorch:2.7.1-cuda12.8-cudnn9-runtime

# A C compiler, for --model.compile true.
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/gan-lightning
COPY pyproject.toml README.md LICENSE ./
COPY gan_lightning gan_lightning
COPY configs configs

# The lowest versions that pyproject.toml allows, which `make test-lowest` tests: a later build installs the same ones.
# What the base has already stays, torch and torchvision by a constraint. `make try-image` runs these lines in a virtual
# environment.
ENV PIP_BREAK_SYSTEM_PACKAGES=1 UV_BREAK_SYSTEM_PACKAGES=1 PIP_NO_CACHE_DIR=1 UV_NO_CACHE=1
RUN python -m pip install uv
RUN python -m pip freeze | grep -E '^torch(vision)?==' | sed 's/+.*//' > /tmp/base.txt
RUN python -m uv pip install --python "$(command -v python)" --resolution lowest-direct --constraint /tmp/base.txt '.[streaming,tensorboard]'
RUN gan-lightning --version

# Any user may write here, so that `--user` can be that of the host. Threads that wait leave their cores to others.
RUN useradd --create-home gan && install -d -m 1777 /workspace /workspace/runs /cache
ENV GAN_LIGHTNING_CACHE=/cache TORCH_HOME=/cache/torch MPLCONFIGDIR=/tmp/matplotlib USER=gan OMP_WAIT_POLICY=PASSIVE
USER gan
WORKDIR /workspace
VOLUME ["/workspace/runs", "/cache"]
ENTRYPOINT ["gan-lightning"]
