# vLLM for CPU, from the wheels of the package index: what Dockerfile.server is built on where
# there is no GPU. The context is the repository.
FROM python:3.12-slim

# A user with a passwd entry: torch asks for its name. The number is that of the official image.
RUN useradd --uid 2000 --create-home vllm

COPY requirements/uv.txt requirements/server-cpu.txt tests/lab/images/stub_cuda.py /build/
# One step, since each step is written to disk, and half of what is installed is CUDA that a CPU
# never calls: stub_cuda.py puts empty libraries in its place. What is not compiled to bytecode now
# would be at every start, as the server's user may not write here.
RUN apt-get update -qq \
    && apt-get install -y -qq --no-install-recommends libnuma1 gcc binutils > /dev/null \
    && pip install -q --no-cache-dir --require-hashes -r /build/uv.txt \
    && SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt \
        uv pip install -q --system --cache-dir=/var/cache/uv --link-mode=copy \
        --no-deps --require-hashes -r /build/server-cpu.txt \
    && cd /usr/local/lib/python3.12/site-packages \
    && python /build/stub_cuda.py . \
    && rm -r torch/include torch/lib/libtorch_cuda_linalg.so \
    && { python -m compileall -q -j 2 . > /build/log || tail -3 /build/log; } \
    && apt-get purge -y -qq --autoremove gcc binutils > /dev/null \
    && rm -rf /build /var/lib/apt/lists/*
