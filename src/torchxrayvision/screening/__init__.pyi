from .checks import Check as Check
from .checks import Finding as Finding
from .checks import check as check
from .checks import check_to_file as check_to_file
from .checks import iter_checks as iter_checks
from .checks import quick_check as quick_check
from .pose import SIDE as SIDE
from .pose import pose_of as pose_of
