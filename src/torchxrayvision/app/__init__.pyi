from .guard import Access as Access
from .guard import is_loopback as is_loopback
from .library import Library as Library
from .networks import Classifier as Classifier
from .networks import Networks as Networks
from .server import Settings as Settings
from .server import create_app as create_app
from .server import serve as serve
