# syntax=docker/dockerfile:1
# Two stages: wheels are built with everything that needs, and the image that runs gets the wheels alone.

FROM python:3.13-slim-bookworm AS build
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY proxy ./proxy
COPY sql ./sql
RUN pip wheel --no-cache-dir --disable-pip-version-check --wheel-dir /wheels .

FROM python:3.13-slim-bookworm AS run
# No .pyc files at run time and no buffered output: the root file system may be read-only.
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
RUN --mount=type=bind,from=build,source=/wheels,target=/wheels \
    pip install --no-cache-dir --disable-pip-version-check --no-index --find-links /wheels mcp-manager-proxy \
    && groupadd --system --gid 10001 proxy \
    && useradd --system --uid 10001 --gid proxy --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin proxy \
    && install --directory --owner proxy --group proxy --mode 0700 /var/lib/mcp-manager
COPY deploy/config.yaml /etc/mcp-manager/config.yaml
# The state directory: keys, the copy of the registry, and records that PostgreSQL does not have yet.
VOLUME /var/lib/mcp-manager
USER 10001:10001
EXPOSE 8080 9090
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 \
    CMD ["python", "-c", "import http.client as h; c = h.HTTPConnection('127.0.0.1', 9090, timeout=2); \
         c.request('GET', '/livez'); raise SystemExit(c.getresponse().status != 200)"]
# The process is PID 1 and handles SIGTERM itself: it drains.
STOPSIGNAL SIGTERM
ENTRYPOINT ["mcp-manager"]
CMD ["serve", "--config", "/etc/mcp-manager/config.yaml"]

# A small MCP server to try the proxy with; compose.yaml starts it beside the proxy.
FROM run AS demo
USER root
COPY pyproject.toml README.md LICENSE /source/
COPY proxy /source/proxy
RUN pip install --no-cache-dir --disable-pip-version-check "/source[example]" && rm -rf /source
COPY examples /examples
USER 10001:10001
HEALTHCHECK NONE
ENTRYPOINT ["python"]
CMD ["/examples/demo_server.py"]

# The last stage is what `docker build .` makes.
FROM run
