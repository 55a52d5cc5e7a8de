from .index import Index as Index
from .index import read_index as read_index
from .index import write_index as write_index
from .search import draw_neighbours as draw_neighbours
from .search import similar as similar
from .vectors import FEATURES as FEATURES
from .vectors import Encoder as Encoder
