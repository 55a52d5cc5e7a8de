from .mistakes import Mistake as Mistake
from .mistakes import find_mistakes as find_mistakes
from .mistakes import with_pictures as with_pictures
from .probes import ProbeStudy as ProbeStudy
from .probes import write_probe_report as write_probe_report
from .writing import Judgement as Judgement
from .writing import Options as Options
from .writing import write_report as write_report
