"""Write shards of many small files; run by the tests that kill it."""

import sys

from multimodal.datamodules.commands import main

if __name__ == "__main__":
    sys.exit(main(["write", *sys.argv[1:]]))
