"""The build backend of the repository's root, for builds that are started in this folder."""

import os
from pathlib import Path

os.chdir(Path(__file__).resolve().parents[2])

from scikit_build_core.build import *  # noqa: E402, F403
from scikit_build_core.build import __all__  # noqa: E402, F401
