"""A CUDA device that is only pretended, for what a program does with devices.

Inside ``pretended_cuda()`` torch says that it has one GPU. Tensors that a program puts there stay in ordinary memory
and are computed on the processor, but know that they are "on" it, and torch's rules for devices hold: an operator takes
tensors of one device, numpy reads none of a GPU's memory, a random generator serves its own device only, and operators
that have no deterministic form on CUDA refuse under ``use_deterministic_algorithms``. A program that passes here has no
tensor left behind on the wrong device. It is also counted how often the program waits for the GPU, and how many
operators it starts there. What the numbers would be on a GPU, and how fast, is not known from it.

In a rehearsal (see rehearsal.py), where this is a plugin of pytest that is imported before vitlite, torch seems to be
built with CUDA and the GPU to be fast in bfloat16: the Triton kernels then serve it, under autocast.
"""

import contextlib
import functools
from unittest import mock

import torch
from rehearsal import REHEARSAL
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn.utils import clip_grad
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

GROUPS = "_group_tensors_by_device_and_dtype"
CUDA, CPU = torch.device("cuda", 0), torch.device("cpu")
# Moves between devices; and where an index or a mask may come from the processor.
MOVES = {"aten::copy_", "aten::_to_copy", "aten::set_"}
INDEXED = {"aten::index", "aten::index_put_", "aten::index_put", "aten::_index_put_impl_"}
# The size of the result is known on the GPU alone, or the number is: the program waits for it.
READ = {"aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::unique_dim", "aten::_unique2"}
# torch.use_deterministic_algorithms lists these, of those that the methods could come to use, as refused on CUDA.
NOT_DETERMINISTIC = {
    "aten::_adaptive_avg_pool2d_backward",
    "aten::adaptive_max_pool2d_backward",
    "aten::avg_pool3d_backward",
    "aten::bincount",
    "aten::cumsum",
    "aten::grid_sampler_2d_backward",
    "aten::grid_sampler_3d_backward",
    "aten::histc",
    "aten::kthvalue",
    "aten::median.dim",
    "aten::nll_loss2d_forward",
    "aten::put_",
    "aten::reflection_pad1d_backward",
    "aten::reflection_pad2d_backward",
    "aten::replication_pad2d_backward",
    "aten::scatter_reduce",
    "aten::upsample_bicubic2d_backward",
    "aten::upsample_bilinear2d_backward",
    "aten::upsample_linear1d_backward",
}
if REHEARSAL:
    torch.version.cuda = "13.0"
_real_device = torch.Tensor.device
_autocast, _autocast_enabled, _autocast_dtype = torch.autocast, torch.is_autocast_enabled, torch.get_autocast_dtype


class Storages:
    """The storages that are on the GPU. A weak reference keeps an address from being given to another storage."""

    def __init__(self):
        self.found = {}

    def __contains__(self, tensor):
        return tensor.layout is torch.strided and tensor.untyped_storage()._cdata in self.found

    def add(self, tensor):
        storage = tensor.untyped_storage()
        self.found[storage._cdata] = StorageWeakRef(storage)

    def remove(self, tensor):
        del self.found[tensor.untyped_storage()._cdata]


class Pretended:
    def __init__(self):
        self.there = Storages()
        self.moved = 0  # tensors that were put on the GPU: a test can tell that there were any
        self.waits: list[str] = []  # what the program waited for: numbers that it read, and copies
        self.started = 0  # operators that compute something there

    def device(self, tensor):
        real = _real_device.__get__(tensor)
        return CUDA if real.type == "cpu" and tensor in self.there else real

    def put(self, tensor):
        """On the GPU: the tensor, which is nobody else's yet."""
        self.there.add(tensor)
        self.moved += 1
        return tensor

    def move(self, copy, device):
        """A fresh copy of a tensor, where it is to be; until now it was where the tensor is."""
        if device.type == "cuda":
            return self.put(copy)
        self.there.remove(copy)
        return copy


def names_cuda(device):
    if isinstance(device, int):
        return True
    return device is not None and torch.device(device).type == "cuda"


class Operators(TorchDispatchMode):
    """What torch computes: checks the devices of an operator's tensors, and puts its results where they belong."""

    def __init__(self, state):
        super().__init__()
        self.state = state

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = function._schema.name
        inputs = [a for a in tree_leaves((args, kwargs)) if isinstance(a, torch.Tensor)]
        on_gpu = [a in self.state.there for a in inputs]
        if any(on_gpu) and name not in MOVES:
            counted = inputs[:1] if name in INDEXED else inputs
            for a in counted:
                # Numbers of the processor without dimensions go along.
                if a not in self.state.there and a.dim() > 0 and _real_device.__get__(a).type == "cpu":
                    raise RuntimeError(f"Expected all tensors to be on the same device: {name} got cuda:0 and cpu")
            refused = name in NOT_DETERMINISTIC and torch.are_deterministic_algorithms_enabled()
            if refused and (name != "aten::cumsum" or inputs[0].is_floating_point()):
                raise RuntimeError(f"{name} does not have a deterministic implementation")
        if any(on_gpu):
            self.state.started += not function.is_view
            masks = name in INDEXED and any(
                a.dtype in (torch.bool, torch.uint8) for a in tree_leaves(args[1]) if a is not None
            )
            if name in READ or masks:
                self.state.waits.append(name)
        results = function(*args, **kwargs)
        if any(on_gpu) and name not in MOVES:
            known = {id(a) for a in inputs}
            for a in tree_leaves(results):
                if isinstance(a, torch.Tensor) and id(a) not in known and a not in self.state.there:
                    self.state.there.add(a)
        elif name == "aten::_to_copy" and on_gpu[0]:
            self.state.there.add(results)  # to another dtype; moves do not come so far
        return results


class Calls(TorchFunctionMode):
    """What a program calls: moves between devices, and new tensors on the GPU."""

    def __init__(self, state):
        super().__init__()
        self.state = state

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if function is torch.Tensor.to:
            return self.to(args[0], list(args[1:]), kwargs)
        if function is torch.Tensor.cuda:
            return self.to(args[0], [CUDA], {})
        if function is torch.Tensor.cpu:
            return self.to(args[0], [CPU], {})
        if function in (torch.Tensor.numpy, torch.Tensor.__array__) and args[0] in self.state.there:
            raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first")
        if function is torch.Tensor.tolist and args[0] in self.state.there:
            self.state.waits.append("tolist")
        if function is torch.Tensor.new_tensor and args[0] in self.state.there:
            self.state.waits.append("new_tensor")
        if function is torch.Tensor.pin_memory:
            return args[0]
        if function is torch.Tensor.__deepcopy__ and args[0] in self.state.there:  # copies the storage, by no operator
            return self.state.put(function(*args, **kwargs))
        if kwargs.get("device") is None:
            return function(*args, **kwargs)
        there = names_cuda(kwargs["device"])
        if there:
            if function in (torch.tensor, torch.as_tensor):
                self.state.waits.append("tensor")
            if kwargs.get("generator") is not None:
                raise RuntimeError("Expected a 'cuda' device type for generator but found 'cpu'")
            kwargs["device"] = CPU
        result = function(*args, **kwargs)
        if there:
            return self.state.put(result)
        return result

    def to(self, tensor, args, kwargs):
        """``Tensor.to`` with a device, a dtype, both, or another tensor."""
        device, dtype = kwargs.pop("device", None), kwargs.pop("dtype", None)
        waits = not kwargs.pop("non_blocking", False)
        for a in args:
            if isinstance(a, torch.Tensor):
                device, dtype = self.state.device(a), a.dtype
            elif isinstance(a, torch.dtype):
                dtype = a
            elif isinstance(a, (torch.device, str)):
                device = a
        result = torch.Tensor.to(tensor, dtype or tensor.dtype, **kwargs)
        if device is None or torch.device(device).type == self.state.device(tensor).type:
            return result
        if torch.device(device).type == "meta":
            return torch.Tensor.to(result, device)
        if waits:
            self.state.waits.append(f"to {device}")
        return self.state.move(torch.Tensor.clone(result), torch.device(device))


class Autocast(_autocast):
    """The processor's, whose operators those of the pretended GPU are."""

    def __init__(self, device_type, *args, **kwargs):
        super().__init__("cpu", *args, **kwargs)


def groups_by_place(state):
    """What clips gradients asks torch's core for their devices, which knows the real ones."""
    real = getattr(clip_grad, GROUPS)

    def grouped(lists, *args, **kwargs):
        found = real(lists, *args, **kwargs)
        return {(state.device(group[0][0][0]), kind): group for (_, kind), group in found.items()}

    return grouped


def choices_of_triton():
    """As a torch built with CUDA: tables of the operators that Triton serves, without ordinary memory."""
    if REHEARSAL or torch.version.cuda is None:
        return []
    from vitlite.kernels import OPERATORS, operator

    choices = [operator(name).backends.choice for name in OPERATORS]
    return [choice for choice in choices if choice.get(("auto", "cuda")) == "triton"]


@contextlib.contextmanager
def pretended_cuda():
    """Yields a ``Pretended``; its ``moved`` counts what was put on the GPU."""
    state = Pretended()
    load = torch.load

    @functools.wraps(load)
    def loaded(*args, map_location=None, **kwargs):
        if map_location is None or not names_cuda(map_location):
            return load(*args, map_location=map_location, **kwargs)
        found = load(*args, map_location="cpu", **kwargs)
        return tree_map(lambda a: state.put(a) if isinstance(a, torch.Tensor) else a, found)

    with contextlib.ExitStack() as stack:
        for name, value in {
            "is_available": lambda: True,
            "device_count": lambda: 1,
            "current_device": lambda: 0,
            "synchronize": lambda *a: None,
            "is_current_stream_capturing": lambda: False,
            "empty_cache": lambda: None,
            "mem_get_info": lambda *a: (2**34, 2**34),
            "_sleep": lambda cycles: None,
            "get_device_name": lambda *a: "pretended",
            "is_bf16_supported": lambda *a, **k: REHEARSAL,
            "get_rng_state": lambda *a: torch.get_rng_state(),
            "set_rng_state": lambda s, *a: torch.set_rng_state(s),
            "manual_seed_all": lambda *a: None,
        }.items():
            stack.enter_context(mock.patch.object(torch.cuda, name, value))
        for name, value in {
            "load": loaded,
            "autocast": Autocast,
            "is_autocast_enabled": lambda *device: _autocast_enabled("cpu"),
            "get_autocast_dtype": lambda device: _autocast_dtype("cpu"),
        }.items():
            stack.enter_context(mock.patch.object(torch, name, value))
        for choice in choices_of_triton():
            stack.enter_context(mock.patch.dict(choice, {("auto", "cuda"): "eager"}))
        stack.enter_context(mock.patch.object(torch.Tensor, "device", property(state.device), create=True))
        stack.enter_context(mock.patch.object(clip_grad, GROUPS, groups_by_place(state)))
        is_cuda = property(lambda tensor: tensor in state.there)
        stack.enter_context(mock.patch.object(torch.Tensor, "is_cuda", is_cuda, create=True))
        stack.enter_context(Operators(state))
        stack.enter_context(Calls(state))
        yield state
