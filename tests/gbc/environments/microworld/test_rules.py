"""What prompts mean, by hand."""

from framework.gbc.environments.microworld.rules import answer

WORKER = "worker : area from area short , price from nothing full , day from price short"
ALPHA = "alpha serves hotel"
REQUEST = "user: find me hotel-day monday hotel-area north hotel-price cheap and taxi-area west"


def test_a_worker_by_hand():
    asked = f"{ALPHA}\n{REQUEST}\nmanager: alpha hotel bravo rest"
    assert answer(WORKER, asked) == "hotel-area n hotel-price none hotel-day $1"
    resting = f"{ALPHA}\n{REQUEST}\nmanager: alpha rest bravo hotel"
    assert answer(WORKER, resting) == "hotel-area none hotel-price none hotel-day none"


def test_a_manager_by_hand():
    prompt = "manager : alpha for train , bravo for nothing , charlie for hotel"
    assert answer(prompt, REQUEST) == "alpha rest bravo rest charlie hotel"


def test_a_responder_by_hand():
    prompt = "responder : area from day , price from price , day from nothing"
    read = "alpha: hotel-area n hotel-price $1 hotel-day mon\nbravo:\nplaces: hotel-name acorn"
    assert answer(prompt, read) == "hotel-area mon hotel-price $1 hotel-day none hotel-name acorn"
