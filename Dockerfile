# kdsearch with everything a worker, the CLI and the dashboard need.
# docker build -t kdsearch .        (TORCH_INDEX: where torch comes from; PyTorch's CPU index by default)
ARG PYTHON_IMAGE=python:3.12-slim-bookworm
FROM ${PYTHON_IMAGE}

ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1

RUN python3 -m venv /opt/kdsearch
ENV PATH=/opt/kdsearch/bin:$PATH
WORKDIR /app

# Dependencies first, so that a change of the code does not install torch again.
COPY constraints.txt ./
RUN pip install --no-deps --index-url "$TORCH_INDEX" "$(grep '^torch==' constraints.txt)" \
 || pip install --constraint constraints.txt torch
COPY pyproject.toml README.md LICENSE ./
COPY kdsearch/__init__.py kdsearch/__init__.py
COPY dashboard/__init__.py dashboard/__init__.py
RUN pip install --constraint constraints.txt ".[onnx,dashboard,hf,zh]"

COPY kdsearch kdsearch
COPY dashboard dashboard
RUN pip install --no-deps --force-reinstall . && rm -rf /app/* \
 && useradd --create-home --uid 10001 kdsearch \
 && install -d -o kdsearch -g kdsearch /artifacts /exported /data /work

USER kdsearch
WORKDIR /work
CMD ["kdsearch", "--help"]
