"""Makes CondloraSans-Regular.ttf from DejaVu Sans 2.37. Needs fonttools.

usage: python subset.py DejaVuSans.ttf CondloraSans-Regular.ttf
"""

import sys

from fontTools import subset

RANGES = [
    (0x20, 0x7E), (0xA0, 0x17F),  # Latin
    (0x386, 0x3CE), (0x3D5, 0x3D5), (0x410, 0x44F),  # Greek, Cyrillic
    (0x2010, 0x2026), (0x2070, 0x209C),  # punctuation, superscripts and subscripts
    (0x2190, 0x2195),  # arrows
]
SINGLE = (
    [0x2030, 0x2032, 0x2033, 0x2039, 0x203A, 0x20AC, 0x2122, 0xFFFD]
    + [0x1D2C, 0x1D2E, 0x1D40, 0x1D43, 0x1D47]  # raised A, B, T, a, b
    + [0x2202, 0x2206, 0x2207, 0x2208, 0x220F, 0x2211, 0x2212, 0x2215, 0x2217, 0x2218, 0x2219, 0x221A, 0x221D, 0x221E]
    + [0x2225, 0x2229, 0x222A, 0x222B, 0x223C, 0x2248, 0x2260, 0x2261, 0x2264, 0x2265, 0x226A, 0x226B, 0x22C5]
)
NAMES = {1: "Condlora Sans", 2: "Regular", 3: "Condlora Sans", 4: "Condlora Sans", 6: "CondloraSans"}

options = subset.Options()
options.layout_features = []
options.legacy_kern = True
options.hinting = False
options.notdef_outline = True
options.name_IDs = ["*"]
options.drop_tables += ["GPOS", "GSUB", "GDEF", "FFTM", "MATH", "gasp"]
options.recalc_timestamp = False

font = subset.load_font(sys.argv[1], options)
subsetter = subset.Subsetter(options)
subsetter.populate(unicodes=[*SINGLE, *(c for first, last in RANGES for c in range(first, last + 1))])
subsetter.subset(font)
# Its licence asks for another name. The copyright (0) and version (5) stay.
font["name"].names = [r for r in font["name"].names if r.nameID in (0, 5) or r.nameID in NAMES]
for record in font["name"].names:
    record.string = NAMES.get(record.nameID, record.string)
subset.save_font(font, sys.argv[2], options)
