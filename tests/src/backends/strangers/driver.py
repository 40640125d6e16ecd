"""Another writer beside acmegate: it adds and removes values of its own at the names it is given, several at a time.

The provider's script comes after this text; it defines add(name, value) and remove(name, value), and calls run(). Arguments: ROUNDS SECONDS SEED
NAME[,NAME...], then the provider's own. The rounds are spread over so many seconds. It prints what stands at the end, as JSON: {name: [value...]}.
"""

import collections
import json
import random
import sys
import threading
import time

WORKERS = 4


def run(add, remove):
    rounds, seconds, seed, names = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3], sys.argv[4].split(",")
    begin = time.monotonic()
    held = collections.defaultdict(set)
    failures = []

    def work(number):
        chance = random.Random(f"{seed}/{number}")
        mine = collections.defaultdict(list)
        try:
            for round in range(rounds // WORKERS):
                time.sleep(max(0, begin + seconds * round * WORKERS / rounds - time.monotonic()))
                name = chance.choice(names)
                # Of a few values: clouds do not keep many at one name.
                if len(mine[name]) > 1 or mine[name] and chance.random() < 0.4:
                    value = mine[name].pop(chance.randrange(len(mine[name])))
                    remove(name, value)
                else:
                    value = f'stranger {number}/{round} "of its own" \\ here'
                    add(name, value)
                    mine[name].append(value)
        except Exception as error:
            failures.append(f"{type(error).__name__}: {error}")
        for name, values in mine.items():
            held[name].update(values)

    workers = [threading.Thread(target=work, args=(number,)) for number in range(WORKERS)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if failures:
        sys.exit("\n".join(failures))
    print(json.dumps({name: sorted(values) for name, values in held.items()}))


def quoted(value):
    """A value in presentation form."""
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
