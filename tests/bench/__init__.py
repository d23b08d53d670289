"""What `docs/performance.md` is made from: figures, which depend on the machine, and no tests."""
