"""`python -m nllbd` is `nllbd`."""

import sys

from nllbd.cli import main

sys.exit(main())
