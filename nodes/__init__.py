"""The nodes of the pack; each in a file of its own."""

from .apply_delta import PeRFlowApplyDelta
from .extract_delta import PeRFlowExtractDelta
from .instaflow_noise import InstaFlowNoise
from .instaflow_sampling import InstaFlowModelSampling
from .model_sampling import PeRFlowModelSampling
from .pcm_schedule import PCMPhaseSchedule
from .prompt_to_prompt import PeRFlowPromptToPrompt
from .sampler import PeRFlowSampler
from .schedule_plot import PeRFlowSchedulePlot
from .train_delta import PeRFlowTrainDelta
from .window_schedule import PeRFlowWindowSchedule
from .wonder3d_conditioning import Wonder3DConditioning
from .wonder3d_loader import Wonder3DLoader
from .wonder3d_views import Wonder3DViews

NODES = [
    PeRFlowApplyDelta,
    PeRFlowModelSampling,
    PeRFlowWindowSchedule,
    PeRFlowSampler,
    PeRFlowSchedulePlot,
    PeRFlowExtractDelta,
    PeRFlowTrainDelta,
    InstaFlowModelSampling,
    InstaFlowNoise,
    PCMPhaseSchedule,
    PeRFlowPromptToPrompt,
    Wonder3DLoader,
    Wonder3DConditioning,
    Wonder3DViews,
]
