"""What the papers print for each category of a data set, in percent.

SIVT's Table I is not here: the text of the paper that we have mixes its cells up.
"""

Figures = dict[str, dict[str, float]]  # column of a table: {category: figure}

METRICS = {"image": "image_auroc", "pixel": "pixel_auroc", "pro": "aupro_30"}


def columns(text: str) -> Figures:
    """A table as text, the names of its columns first, by column; "-" is no figure."""
    head, *lines = (line.split() for line in text.strip().splitlines())
    places = enumerate(head[1:], 1)
    return {name: {line[0]: float(line[at]) for line in lines if line[at] != "-"} for at, name in places}


def by_method(text: str) -> dict[str, Figures]:
    """The figures of each method by metric, of a table whose columns have both as their names."""
    found: dict[str, Figures] = {}
    for name, figures in columns(text).items():
        method, _, metric = name.partition(".")
        found.setdefault(method, {})[METRICS[metric]] = figures
    return found


# ISSTAD, Tables 4 and 5: image and pixel AUROC of the models.
ISSTAD_IMAGE = columns(
    """
category      I     II    III   IV    V     VI    VII   VIII  ours
bottle        85.3  71.4  89.0  83.7  92.9  83.3  96.1  100.0 100.0
cable         77.8  61.4  78.7  60.5  79.3  52.8  68.3  93.4  93.6
capsule       67.1  81.2  72.8  74.8  79.8  79.2  82.6  89.2  92.9
carpet        46.2  46.7  51.2  84.5  73.2  40.9  46.1  98.9  97.1
grid          94.0  82.1  84.8  96.2  96.8  86.0  86.9  100.0 100.0
hazelnut      90.4  96.6  90.3  89.7  90.9  93.7  88.1  99.9  100.0
leather       52.8  44.4  54.1  99.4  96.0  47.4  57.2  100.0 100.0
metal_nut     56.5  47.3  63.6  92.6  94.7  29.0  56.6  99.9  99.3
pill          59.0  86.3  76.8  82.8  84.5  89.4  88.1  97.4  96.6
screw         100.0 99.8  89.8  100.0 98.8  99.7  99.9  82.9  88.3
tile          75.6  92.5  75.9  90.6  95.7  87.3  92.2  100.0 100.0
toothbrush    80.6  89.7  98.1  94.2  98.3  90.8  97.8  100.0 100.0
transistor    84.3  71.4  76.0  87.2  89.7  72.5  83.4  97.2  96.6
wood          95.0  96.4  95.0  99.7  99.5  92.0  94.0  100.0 100.0
zipper        75.8  78.5  75.9  93.4  92.5  84.2  90.3  100.0 100.0
"""
)
ISSTAD_PIXEL = columns(
    """
category      I     II    III   IV    V     VI    VII   VIII  ours
bottle        74.3  79.1  88.9  79.0  91.4  84.2  92.2  92.7  96.6
cable         91.6  85.1  89.5  79.4  89.8  83.7  86.9  87.0  92.9
capsule       88.1  94.1  95.1  84.2  94.4  93.3  95.5  93.6  96.7
carpet        82.2  81.4  73.5  74.0  70.3  77.6  82.4  98.9  99.0
grid          99.2  79.0  70.6  74.7  79.2  94.7  98.2  99.3  99.5
hazelnut      97.1  98.2  98.3  82.4  96.2  98.2  98.3  97.7  99.1
leather       97.5  95.6  97.1  83.5  95.6  88.5  96.5  99.3  99.5
metal_nut     88.3  70.5  90.9  67.2  78.3  71.2  89.3  67.0  90.5
pill          56.6  96.7  92.2  74.9  89.9  97.7  97.8  85.5  93.2
screw         97.9  97.7  97.4  73.0  96.3  98.2  99.2  96.4  98.5
tile          60.3  89.6  61.6  67.4  69.3  77.2  83.9  84.7  88.5
toothbrush    70.4  96.3  98.2  79.4  97.6  95.0  98.4  98.1  99.0
transistor    88.0  76.7  87.3  89.1  94.0  77.6  86.3  94.7  92.0
wood          85.2  86.7  87.8  78.5  95.0  82.2  87.1  95.3  96.7
zipper        86.0  86.8  88.2  72.7  89.2  92.7  92.7  98.7  99.2
"""
)
# MVTec AD: MemCA, Tables 3 and 4; VT-ADL, Tables II and III (without noise); AnoViT and L2-CAE, Tables 2 to 5 of
# AnoViT's paper.
MVTEC = by_method(
    """
    category    memca.image  memca.pixel  memca.pro  vtadl.pro  anovit.image  anovit.pixel  l2cae.image  l2cae.pixel
    carpet      85.0         88.4         88.0       77.3       50            65            54           71
    grid        89.6         97.2         96.3       87.1       52            83            78           67
    leather     92.0         96.6         95.0       72.8       85            89            77           82
    tile        92.8         92.8         93.4       79.6       89            57            85           59
    wood        95.3         91.4         90.0       78.1       95            85            98           82
    bottle      94.0         95.1         92.1       94.9       83            86            77           83
    cable       93.0         92.6         91.4       77.6       74            89            66           85
    capsule     83.7         93.1         92.2       67.2       73            91            67           91
    hazelnut    100.0        98.2         99.0       89.7       88            94            88           95
    metal_nut   89.5         91.0         89.0       72.6       86            88            42           86
    pill        86.3         92.6         93.2       70.5       72            86            68           85
    screw       100.0        97.7         100.0      92.8       100           92            100          92
    toothbrush  93.2         89.4         90.5       90.1       74            90            41           85
    transistor  86.8         85.0         81.0       79.6       83            80            88           77
    zipper      89.7         93.2         94.0       80.8       73            76            71           74
    """
)
# MNIST and CIFAR-10: L2-CAE and AnoViT, Tables 4 and 5 of AnoViT's paper; VT-ADL, Table II.
CLASSES = by_method(
    """
    category    l2cae.image  anovit.image  vtadl.image
    0           93.8         98.0          99.0
    1           99.4         98.6          100.0
    2           85.3         91.1          97.6
    3           88.0         83.8          97.6
    4           87.8         91.3          98.4
    5           89.9         92.4          97.1
    6           94.9         97.5          99.5
    7           92.5         91.4          99.0
    8           83.4         83.8          97.4
    9           92.6         95.8          99.0
    airplane    59.7         66.4          -
    automobile  52.5         46.4          -
    bird        58.5         63.9          -
    cat         52.5         55.0          -
    deer        64.4         74.3          -
    dog         54.7         54.2          -
    frog        63.8         70.0          -
    horse       42.8         50.9          -
    ship        67.5         69.7          -
    truck       52.6         50.2          -
    """
)


def with_classes(method: str) -> Figures:
    """Table 4 and 5 of AnoViT's paper with Tables 2 and 3 beside: categories of several data sets, no two alike."""
    return {**MVTEC[method], "image_auroc": MVTEC[method]["image_auroc"] | CLASSES[method]["image_auroc"]}
