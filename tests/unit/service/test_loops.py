"""What runs again and again outlives every fault, says what it was, and stops when told."""

from support.service_runs import until
from torchxrayvision.errors import DeliveryError, OverloadError
from torchxrayvision.service.loops import Loop


class Own(Loop):
    def __init__(self, faults, log):
        super().__init__("own", 0.0, log, archive="pacs")
        self.faults = faults
        self.looks = 0
        self.ended = False

    def look(self):
        self.looks += 1
        if self.faults:
            raise self.faults.pop(0)

    def _end(self):
        self.ended = True


def test_a_fault_is_logged_without_its_text_and_the_next_look_comes(monkeypatch):
    monkeypatch.setattr("torchxrayvision.service.loops._FAULT_SECONDS", 0.01)
    said = []
    faults = [ValueError("Planted^Marker"), DeliveryError("QIDO-RS answers 500"),
              OverloadError("the queue is full")]  # fmt: skip
    loop = Own(faults, lambda event, **facts: said.append((event, facts)))
    loop.start()
    assert until(lambda: loop.looks > 5)
    loop.stop(5)
    assert said == [
        ("own_fault", {"error": "ValueError", "archive": "pacs"}),
        ("own_fault", {"error": "QIDO-RS answers 500", "archive": "pacs"}),
        ("overload", {"reason": "the queue is full"}),
    ]
    assert loop.ended
    looks = loop.looks
    assert not until(lambda: loop.looks > looks, 0.1)


def test_what_was_never_started_stops():
    Own([], lambda *_, **__: None).stop(0)
