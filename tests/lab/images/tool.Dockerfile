# A static binary and nothing else; the context is the folder that holds it.
FROM scratch
ARG BINARY
COPY ${BINARY} /tool
USER 65532
ENTRYPOINT ["/tool"]
