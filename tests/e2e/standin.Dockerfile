# The server with a stand-in for vLLM, for tests of what happens around it. The context is `tests`.
ARG BASE
FROM ${BASE}
COPY standin_server.py standin_engine.py /opt/standin/
ENTRYPOINT ["python3", "/opt/standin/standin_server.py"]
