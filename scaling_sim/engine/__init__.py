"""What a backend must do, who they are, and the readable truth they are compared with.

``protocol`` the contract; ``cohort`` what is trained; ``registry`` finds backends; ``reference`` the NumPy backend;
``philox`` dropout masks; ``checks`` what every backend refuses; ``conformance`` the test kit (needs pytest).
"""

from scaling_sim.engine.cohort import Cohort as Cohort
from scaling_sim.engine.cohort import Member as Member
from scaling_sim.engine.cohort import Precision as Precision
from scaling_sim.engine.cohort import Recipe as Recipe
from scaling_sim.engine.protocol import Backend as Backend
from scaling_sim.engine.protocol import State as State
from scaling_sim.engine.protocol import Tokens as Tokens
from scaling_sim.engine.protocol import Trainer as Trainer
