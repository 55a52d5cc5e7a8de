from .choosing import conformal_limits as conformal_limits
from .choosing import parse_target as parse_target
from .fitting import METHODS as METHODS
from .fitting import fit as fit
from .record import Calibration as Calibration
from .record import FindingCalibration as FindingCalibration
