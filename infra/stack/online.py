"""Whether a pool has a worker that lives, by the Prefect server's clock: the health check of the workers' containers.

python -m infra.stack.online cpu      exit code 0 or 1, in 0.1 s: nothing but the standard library is imported
"""

from __future__ import annotations

import base64
import json
import os
import sys
import urllib.parse
import urllib.request


def workers(api: str, login: str, pool: str) -> list[str]:
    """The names of the pool's workers that are online."""
    headers = {"Content-Type": "application/json"}
    if login:
        headers["Authorization"] = "Basic " + base64.b64encode(login.encode()).decode()
    address = f"{api.rstrip('/')}/work_pools/{urllib.parse.quote(pool, safe='')}/workers/filter"
    request = urllib.request.Request(address, data=b"{}", headers=headers, method="POST")
    with urllib.request.urlopen(request, timeout=10) as answer:
        return [worker["name"] for worker in json.load(answer) if worker["status"] == "ONLINE"]


def main() -> int:
    try:
        found = workers(os.environ["REMINT_PREFECT_API"], os.environ.get("PREFECT_API_AUTH_STRING", ""), sys.argv[1])
    except (OSError, ValueError) as error:
        print(f"{sys.argv[1]}: {error}")
        return 1
    print(f"{sys.argv[1]}: {', '.join(found) or 'no worker is online'}")
    return 0 if found else 1


if __name__ == "__main__":
    sys.exit(main())
