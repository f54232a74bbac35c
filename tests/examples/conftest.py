"""The chat is tested where playwright is installed (`make browser` does that), and with CI=true."""

import importlib.util
import os

wanted = importlib.util.find_spec("playwright") or os.environ.get("CI") == "true"
collect_ignore_glob = [] if wanted else ["test_chat.py"]
