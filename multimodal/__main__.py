"""``python -m multimodal`` is the command ``multimodal``."""

from multimodal.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
