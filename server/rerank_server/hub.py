"""Which files of a hub repository the server needs."""

# Weights in the one format vLLM takes first, and every small file beside them. A repository
# often holds the same weights again for other libraries.
FILES = ["*.safetensors", "*.json", "*.txt", "*.model", "*.jinja"]
CODE = "*.py"


def patterns(trust_remote_code: bool) -> list[str]:
    """Return glob patterns of what to download; Python code only where it may run."""
    return [*FILES, CODE] if trust_remote_code else FILES
