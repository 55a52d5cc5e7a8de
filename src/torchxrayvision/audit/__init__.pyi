from .checks import Issue as Issue
from .duplicates import Pair as Pair
from .duplicates import search as search
from .fingerprints import thumbnail as thumbnail
from .report import write_report as write_report
from .run import Audit as Audit
from .run import audit as audit
