"""Which of a process's steps a sampler visits, in the notation of the published models."""


def timesteps(spec: str, total: int = 1000) -> list[int]:
    """Return the steps that `spec` keeps of 0 .. total-1, ascending.

    "25": that many, evenly spaced from the first to the last. "10,10,3,2,2": that many in each of as many equal
    sections. "ddim25": every n-th step from 0, for the n that gives as many. "fast27": "10,10,3,2,2" with the last step
    two earlier (GLIDE's upsampler). Raises ValueError for text that is none of these or asks for more steps than there
    are. Nichol and Dhariwal 2021, section 4; the rounding is that of the published code.
    """
    if spec == "fast27":
        return sorted({*timesteps("10,10,3,2,2", total)[:-1], total - 3})
    if spec.startswith("ddim"):
        return _strided(_whole(spec.removeprefix("ddim"), spec), total)
    return _sections([_whole(number, spec) for number in spec.split(",")], spec, total)


def _strided(kept: int, total: int) -> list[int]:
    lengths = {len(range(0, total, stride)): stride for stride in range(total - 1, 0, -1)}  # the smallest stride stays
    if kept not in lengths:
        near = sorted(sorted(lengths, key=lambda length: abs(length - kept))[:2])
        names = " or ".join(f"ddim{length}" for length in near)
        raise ValueError(f"steps 'ddim{kept}': no stride over {total} steps keeps {kept}; take {names}, or '{kept}'")
    return list(range(0, total, lengths[kept]))


def _sections(counts: list[int], spec: str, total: int) -> list[int]:
    size, larger = divmod(total, len(counts))
    kept: list[int] = []
    start = 0
    for section, number in enumerate(counts):
        length = size + (section < larger)
        if number > length:
            raise ValueError(f"steps '{spec}': {number} of a section of {length} steps; there are {total} in all")
        stride = (length - 1) / (number - 1) if number > 1 else 1.0
        # the published lists come from adding the stride up, and from Python's rounding of halves to even
        place = 0.0
        for _ in range(number):
            kept.append(start + round(place))
            place += stride
        start += length
    return kept


def _whole(text: str, spec: str) -> int:
    text = text.strip()
    if not (text.isascii() and text.isdigit() and int(text)):
        raise ValueError(f"steps '{spec}': expected a number like 25, numbers like 10,10,3,2,2, ddim25 or fast27")
    return int(text)
