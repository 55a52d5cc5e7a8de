"""What the service uses of pynetdicom besides its documented interface is still there.

pynetdicom promises nothing for these. Where a test here fails with a new version, look at the place
that it names, then run tests/unit/service/test_receive.py and test_deliver.py, which try what the
place is for, and move the upper bound in pyproject.toml.
"""

import inspect
import tomllib
from pathlib import Path

import pynetdicom
import pytest
from packaging.requirements import Requirement
from pynetdicom import AE, _config, association, dul, fsm, transport


def test_the_upper_bound_holds_this_version():
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text("utf-8"))
    wanted = map(Requirement, project["project"]["optional-dependencies"]["serve"])
    (bound,) = (one.specifier for one in wanted if one.name == "pynetdicom")
    assert any(one.operator in ("<", "<=") for one in bound)
    assert pynetdicom.__version__ in bound


@pytest.mark.parametrize(
    ("place", "owner", "words"),
    [
        # receive._Handler gives each association a bounded socket
        ("RequestHandler.handle", transport.RequestHandler.handle, "self._create_association()"),
        ("DULServiceProvider", dul.DULServiceProvider, "socket.recv("),
        ("fsm", fsm, "._shutdown_socket()"),
        # receive.Listener.start: where associations of a server that was made are counted
        ("AE.start_server", AE.start_server, "self._servers.append(server)"),
        # archives._keep_answers: the reactor takes messages that are not for it
        ("Association._run_reactor", association.Association, "self._serve_request("),
        ("Association.send_c_store", association.Association, "self.dimse.get_msg(block=True)"),
    ],
)
def test_what_is_bounded_from_outside_is_where_it_was(place, owner, words):
    found = words in inspect.getsource(owner)
    assert found, f"pynetdicom {pynetdicom.__version__}: {place} has no {words!r} any more"


def test_files_can_be_sent_as_they_are():
    assert _config.STORE_SEND_CHUNKED_DATASET in (True, False)


def test_answers_lie_in_a_queue_that_takes_one_back():
    made = association.Association(AE(), "requestor")
    queue = made.dimse.msg_queue
    with queue.mutex:
        queue.queue.appendleft((1, None))
        queue.not_empty.notify()
    assert queue.get(block=False) == (1, None)
