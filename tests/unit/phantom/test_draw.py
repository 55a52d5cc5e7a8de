"""Draws: patients, findings and their correlations, without pixels."""

import dataclasses

import numpy as np
import pytest

from torchxrayvision import phantom

COUNT = 900


@pytest.fixture(scope="module")
def records():
    return [phantom.draw_record(index, seed=1) for index in range(COUNT)]


def share(records, name, condition):
    return np.mean([r.labels[name] for r in records if condition(r)])


def test_films_in_a_row_are_of_one_two_and_three_to_a_patient(records):
    ids = [record.patient.id for record in records[:12]]
    assert [ids.count(name) for name in dict.fromkeys(ids)] == [1, 2, 3, 1, 2, 3]


def test_a_patient_keeps_sex_and_grows_older(records):
    by_patient = {}
    for record in records:
        by_patient.setdefault(record.patient.id, []).append(record.patient)
    for films in by_patient.values():
        assert len({film.sex for film in films}) == 1
        assert [film.study for film in films] == list(range(len(films)))
        ages = [film.age_years for film in films]
        assert ages == sorted(ages)
        assert ages[-1] - ages[0] < 1


def test_what_lasts_stays_at_its_place():
    first, second = (
        phantom.draw(index, seed=1, views=["PA"], findings={"Mass": 0.5}) for index in (1, 2)
    )
    assert first.patient.id == second.patient.id
    assert first.sides["Mass"] == second.sides["Mass"]
    assert first.physique == second.physique


def test_the_case_and_the_film_agree_with_the_record(records):
    for index in range(5):
        case = phantom.draw(index, seed=1)
        assert (case.labels, case.view) == (records[index].labels, records[index].view)


def test_ap_films_are_of_the_more_ill(records):
    for name in ("Effusion", "Support Devices"):
        on_ap = share(records, name, lambda r: r.view == "AP")
        assert on_ap > 1.3 * share(records, name, lambda r: r.view == "PA")


def test_age_raises_emphysema_and_cardiomegaly(records):
    for name in ("Emphysema", "Cardiomegaly"):
        old = share(records, name, lambda r: r.patient.age_years > 62)
        assert old > share(records, name, lambda r: r.patient.age_years < 46)


def test_edema_brings_effusion(records):
    with_edema = share(records, "Effusion", lambda r: r.labels["Edema"] == 1)
    assert with_edema > 1.5 * share(records, "Effusion", lambda r: r.labels["Edema"] == 0)


def test_a_lung_opacity_is_any_of_the_opacities(records):
    for record in records:
        assert record.severity["Lung Opacity"] == max(
            record.severity[name] for name in phantom.OPACITIES
        )


def test_every_finding_and_view_occurs(records):
    for name in phantom.FINDINGS:
        assert 0.02 < share(records, name, lambda r: True) < 0.7
    assert {record.view for record in records} == set(phantom.VIEWS)


def test_prevalence_and_odds_can_be_set():
    base = phantom.Correlations()
    common = dataclasses.replace(base, prevalence={**base.prevalence, "Hernia": 0.9})
    count = sum(
        phantom.draw_record(i, seed=1, correlations=common).labels["Hernia"] for i in range(60)
    )
    assert count > 40
    no_laterals = dataclasses.replace(base, lateral_share=0.0, ap_share=1.0)
    assert all(phantom.draw_record(i, correlations=no_laterals).view == "AP" for i in range(20))


def test_findings_can_be_forced_absent_and_others_left_out():
    for index in range(30):
        none = phantom.draw(index, seed=1, findings={"Lung Opacity": 0.0})
        assert not any(none.labels[name] for name in phantom.OPACITIES)
        assert not any(phantom.draw(index, seed=1, others=False).labels.values())


def test_another_seed_is_another_collection(records):
    other = [phantom.draw_record(index, seed=2) for index in range(60)]
    assert [r.labels for r in other] != [r.labels for r in records[:60]]
    assert not {r.patient.id for r in other} & {r.patient.id for r in records}
