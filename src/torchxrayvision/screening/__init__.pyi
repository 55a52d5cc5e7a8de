from .checks import Check as Check
from .checks import Remark as Remark
from .checks import check as check
from .checks import iter_checks as iter_checks
from .pose import SIDE as SIDE
from .pose import pose_of as pose_of
