"""Turn pip's output on standard input into one counting line: what is being installed, and that it moves."""

import sys

terminal = sys.stdout.isatty()
count = 0
for line in sys.stdin:
    words = line.split()
    if not words:
        continue
    if words[0] == "Collecting":
        count += 1
        if terminal:
            print(f"\r  {count:4d} packages resolved, now {words[1][:40]:<40}", end="", flush=True)
        elif count % 25 == 0:
            print(f"  {count} packages resolved", flush=True)
    elif line.startswith("Installing collected packages"):
        print(f"{chr(13) if terminal else ''}  {count:4d} packages resolved, installing {'':<40}", flush=True)
    elif line.startswith("Successfully installed"):
        print(f"  {len(words) - 2} packages installed", flush=True)
