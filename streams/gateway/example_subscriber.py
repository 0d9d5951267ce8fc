import json
import sys

from websockets.sync.client import connect

last: dict[int, int] = {}  # partition -> seq of its newest call
with connect(sys.argv[1] if len(sys.argv) > 1 else "ws://127.0.0.1:8765") as gateway:
    gateway.send(json.dumps({"id": 1, "method": "public/subscribe", "params": {"channels": ["margin.calls"]}}))
    for message in gateway:
        note = json.loads(message).get("params")
        if note is None:
            continue  # the answer to our subscription
        if last.get(note["partition"], note["prev_seq"]) != note["prev_seq"]:
            raise SystemExit(f"missed events after {last[note['partition']]}: ask public/replay for them")
        last[note["partition"]] = note["seq"]
        data = note["data"]
        if data["type"] == "retraction":  # its block is no longer of the chain: forget the event with this id
            print(note["seq"], data["account"], "retracted", data["retracts"], flush=True)
        else:
            print(note["seq"], data["account"], data["from"], "->", data["to"], flush=True)
