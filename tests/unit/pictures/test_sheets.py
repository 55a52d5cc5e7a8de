import numpy as np
import pytest

from torchxrayvision.pictures import contact_sheet


def test_pictures_stand_in_rows_and_what_is_left_is_black():
    shades = [np.full((4, 6), shade, np.uint8) for shade in (50, 100, 150)]
    sheet = contact_sheet(shades, ["", "", ""], 2)
    assert sheet.shape == (8, 12)
    assert [int(sheet[y, x]) for y, x in ((0, 0), (0, 6), (4, 0), (4, 6))] == [50, 100, 150, 0]


@pytest.mark.parametrize(("below", "shape"), [(False, (40, 80)), (True, (64, 96))])
@pytest.mark.parametrize("colours", [(), (3,)])
def test_a_title_stays_in_its_own_cell(below, shape, colours):
    pictures = [np.zeros((40, 40, *colours), np.uint8)] * 2
    sheet = contact_sheet(pictures, ["W" * 50, ""], 2, titles_below=below)
    assert sheet.shape == (*shape, *colours)
    assert sheet[:, :40].any()
    assert not sheet[:, 40:].any()
    assert below != bool(sheet[:16, :40].any())  # in the corner of the picture, or below it
