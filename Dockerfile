# syntax=docker/dockerfile:1
# Two images: `docker build --target cpu .` and `docker build --target cuda .`; compose.yaml runs them.
# Both stand on the same slim Python, since CUDA and cuDNN come as wheels (the extra `cuda`) and the driver comes from
# the host. Neither holds a compiler, a cache or a root process.

FROM python:3.13.9-slim-trixie AS python
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PATH=/opt/faceavatar/bin:$PATH

FROM python AS build-cpu
RUN python -m venv /opt/faceavatar
WORKDIR /src
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY engine engine
COPY export export
COPY cli cli
RUN pip install --no-cache-dir --compile 'faceavatar[serve,queue] @ file:///src'

FROM build-cpu AS build-cuda
# onnxruntime and onnxruntime-gpu share one module, so one has to go before the other comes.
RUN pip install --no-cache-dir --compile 'faceavatar[serve,queue,cuda] @ file:///src' \
    && pip uninstall --yes onnxruntime \
    && pip install --no-cache-dir --compile 'onnxruntime-gpu==1.31.*'

FROM python AS run
RUN groupadd --gid 10001 faceavatar \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /data --shell /usr/sbin/nologin faceavatar \
    && install --directory --owner=10001 --group=10001 --mode=0750 /data
# Numbers, so that a platform can see that it is not root. /data is all that is written to, beside /tmp.
USER 10001:10001
WORKDIR /data
ENV FACEAVATAR_STATE=/data/state FACEAVATAR_OUTPUTS=/data/outputs
VOLUME /data
EXPOSE 8000
STOPSIGNAL SIGTERM
# That the process lives; whether it can draw is told by /readyz, which would also say no while a worker restarts.
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=4 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
ENTRYPOINT ["faceavatar"]
CMD ["serve", "--host", "0.0.0.0", "--port", "8000"]

FROM run AS cuda
COPY --from=build-cuda /opt/faceavatar /opt/faceavatar
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility

FROM run AS cpu
COPY --from=build-cpu /opt/faceavatar /opt/faceavatar
