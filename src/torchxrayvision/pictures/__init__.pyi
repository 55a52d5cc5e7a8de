from .colours import diverging as diverging
from .colours import sequential as sequential
from .outlines import draw_outlines as draw_outlines
from .outlines import palette as palette
from .overlays import annotate as annotate
from .overlays import grey as grey
from .overlays import overlay as overlay
from .overlays import scale_of as scale_of
