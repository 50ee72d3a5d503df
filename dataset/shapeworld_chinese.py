"""Sayings about the embedded data set in Chinese (simplified), written without spaces."""
# ruff: noqa: RUF001  (Chinese punctuation is meant)

from __future__ import annotations

import numpy as np

from dataset.shapeworld_refer import Description
from dataset.shapeworld_sayings import Saying
from dataset.shapeworld_scene import Background, pick

NUMBERS = {1: "一", 2: "两", 3: "三", 4: "四", 5: "五"}
NOUNS = {"circle": "圆形", "square": "正方形", "triangle": "三角形", "star": "星形", "cross": "十字形", "ring": "圆环", None: "图形"}
SIZES = {"small": "小", "large": "大"}
COLORS = {"red": "红色", "green": "绿色", "blue": "蓝色", "yellow": "黄色", "purple": "紫色", "cyan": "青色"}
TEXTURES = {"plain": "没有花纹的", "striped": "带条纹的", "dotted": "带圆点的"}
RELATIONS = {"left_of": ("左边", "左侧"), "right_of": ("右边", "右侧"), "above": ("上方", "上面"), "below": ("下方", "下面")}
SHADES = {"dark": "深色", "light": "浅色"}
GROUNDS = {"plain": "纯色", "gradient": "渐变", "noisy": "噪点", "checkered": "棋盘格"}
OPENINGS = ("一张有{}个图形的图片：", "这里有{}个图形：", "{}个物体：")
RESTS = ("，还有{}", "，另外有{}", "，此外还有{}")


def chinese(saying: Saying, rng: np.random.Generator) -> str:
    """The sentence."""
    opening = "" if saying.total is None else pick(rng, OPENINGS).format(NUMBERS[saying.total])
    ground = "" if saying.ground is None else f"{pick(rng, ('在', ''))}{_ground(saying.ground)}上有"
    things = _enumerated([mention(item, count, rng) for item, count in saying.things])
    if not saying.relations:
        return f"{opening}{ground}{things}"
    verb = pick(rng, ("在", "位于"))
    related = [f"{mention(a, 1, rng)}{verb}{mention(b, 1, rng)}的{pick(rng, RELATIONS[name])}" for a, name, b in saying.relations]
    return "，".join(related) + (pick(rng, RESTS).format(things) if things else "")


def mention(item: Description, count: int, rng: np.random.Generator) -> str:
    """Number and measure word, texture, colour, size, shape: "一个带条纹的红色大圆形"."""
    size = SIZES[item.size] if item.size else ""
    color = COLORS[item.color] if item.color else ""
    texture = TEXTURES[item.texture] if item.texture else ""
    if color and not texture and rng.random() < 0.3:
        color += "的"
    return f"{NUMBERS[count]}个{texture}{color}{size}{NOUNS[item.shape]}"


def _enumerated(phrases: list[str]) -> str:
    return f"{'、'.join(phrases[:-1])}和{phrases[-1]}" if len(phrases) > 1 else "".join(phrases)


def _ground(ground: Background) -> str:
    return f"{SHADES[ground.shade]}{GROUNDS[ground.kind]}背景"
