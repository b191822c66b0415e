"""Errors are found by class and by code, say what to do, and travel between processes."""

from __future__ import annotations

import pickle

import pytest

import faceavatar
from faceavatar import errors

CLASSES = [getattr(errors, name) for name in errors.__all__]
SAMPLES: list[errors.FaceAvatarError] = [
    errors.InvalidRequest("height", 100, "a whole number 256..1536"),
    errors.MissingExtra("openvino", "openvino"),
    errors.NumericalError("unet", 3),
    errors.OverBudget("batch", "8 of 1024x1024", "5 of 1024x1024", 6_000_000_000, 4_000_000_000),
    errors.OutOfMemory("unet.onnx on cpu: bad allocation", 5_000_000_000),
    errors.DeadlineExceeded("unet", 2.5, 7),
    errors.NoFaceFound("no face in photo.jpg"),
]


def test_every_error_is_a_faceavatar_error_and_is_exported_at_the_top() -> None:
    for error in CLASSES:
        assert issubclass(error, errors.FaceAvatarError)
        assert getattr(faceavatar, error.__name__) is error
        assert error.__name__ in faceavatar.__all__


def test_every_code_is_snake_case_and_belongs_to_one_class() -> None:
    codes = [error.code for error in CLASSES]
    assert len(set(codes)) == len(codes)
    assert all(code.replace("_", "").isalpha() and code.islower() for code in codes)


def test_the_tree_at_the_top_of_the_file_names_every_class_with_its_code() -> None:
    tree = errors.__doc__ or ""
    for error in CLASSES:
        assert any({error.__name__, error.code} <= set(line.split()) for line in tree.splitlines())


def test_what_is_wrong_with_a_pack_is_caught_as_one_kind() -> None:
    for name in ("HashMismatch", "EngineStale", "MissingGraph", "SignatureMismatch"):
        assert issubclass(getattr(errors, name), errors.PackInvalid)
    assert issubclass(errors.PackInvalid, errors.PackError)
    assert issubclass(errors.PackNotFound, errors.PackError)


@pytest.mark.parametrize("error", SAMPLES, ids=lambda error: error.code)
def test_an_error_survives_the_way_between_processes(error: errors.FaceAvatarError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)


def test_an_invalid_request_names_field_value_and_range() -> None:
    assert str(SAMPLES[0]) == "height: got 100, allowed a whole number 256..1536"


def test_a_long_value_is_cut_in_the_message_but_kept_whole() -> None:
    error = errors.InvalidRequest("gender", "x" * 5000, "man or woman")
    assert len(str(error)) < 150
    assert error.got == "x" * 5000


def test_a_missing_extra_says_which_command_cures_it() -> None:
    assert str(SAMPLES[1]) == "needs the package openvino: pip install 'faceavatar[openvino]'"


def test_a_numerical_error_says_where_it_happened() -> None:
    assert str(SAMPLES[2]).startswith("unet gave NaN or infinite values at step 3, expected finite ones")
    assert "at step" not in str(errors.NumericalError("vae_decoder"))


def test_what_does_not_fit_says_how_much_there_is_and_what_would() -> None:
    told = str(SAMPLES[3])
    assert told.startswith("batch: got '8 of 1024x1024', allowed 5 of 1024x1024")
    assert told.endswith("it would take 6.00 GB where memory_budget is 4.00 GB")


def test_what_came_too_late_says_where_it_was_stopped() -> None:
    assert str(SAMPLES[5]).startswith("not done after 2.5 s: stopped before unet at step 7")
