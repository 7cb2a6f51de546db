"""The words of the demo: what a scene can hold, how alt-text speaks of it, and what pools are littered with.

Data only; every word list, sentence, brand and name here was made up for the demo. `SHAPES`, `COLOURS` and
`BACKGROUNDS` stand in order of falling frequency: scenes are drawn from them with Zipf-like weights, so that the pool
has a head ("red circle") and a tail ("teal pentagon on bricks") for balancing to work on.

Fields of a caption template:
    {item} red star · {a_item} a red star · {a_sized} a small red star · {a_all} a red star and a pink ring ·
    {all} red star, pink ring · {relation} a red star above a pink ring · {count} two · {shapes} star and ring ·
    {ground} a blue gradient · {bare} blue gradient · {kind} striped · {a_ground} a blue striped · {where} in the top left ·
    {colour} · {shape} · {ground_colour} · {brand} · {person} · {number} · {year} · {pixels} · {print}
"""

from dataclasses import dataclass

RGB = tuple[int, int, int]

SHAPES = (
    *("circle", "square", "star", "triangle", "heart", "diamond"),
    *("cross", "ring", "hexagon", "arrow", "crescent", "pentagon"),
)

COLOURS: dict[str, RGB] = {
    "red": (214, 48, 49),
    "blue": (45, 98, 210),
    "yellow": (248, 206, 60),
    "green": (52, 158, 82),
    "white": (246, 245, 240),
    "black": (34, 35, 41),
    "orange": (240, 128, 38),
    "purple": (126, 68, 176),
    "pink": (242, 138, 182),
    "gray": (139, 143, 150),
    "brown": (124, 80, 46),
    "teal": (18, 142, 140),
}


def _split(words: str) -> tuple[str, ...]:
    return tuple(words.split(", "))


# Backgrounds prefer other colours than shapes do: the two must differ, and "red circle" is to be the head.
GROUND_COLOURS = _split("blue, white, gray, green, yellow, teal, black, orange, pink, purple, brown, red")


@dataclass(frozen=True)
class Background:
    """How captions name a background: its noun ("stripes"), its adjective ("striped"), and whether it takes no "a"."""

    noun: str
    adjective: str
    plural: bool = True


BACKGROUNDS = {
    noun: Background(noun, adjective, plural=noun not in ("gradient", "checkerboard", "grid"))
    for noun, adjective in zip(
        _split("stripes, gradient, dots, waves, noise, checkerboard, grid, clouds, bricks, zigzags, ripples, wood"),
        _split("striped, gradient, dotted, wavy, noisy, checkered, grid, cloudy, brick, zigzag, rippled, wooden"),
        strict=True,
    )
}

# Captions for any scene, with their weights; they name the first shape.
ONE: dict[str, float] = {
    "{item} on {ground}": 12,
    "{a_item} on {ground}": 6,
    "{a_sized} on {ground}": 6,
    "{item} {where} on {ground}": 6,
    "{a_sized} {where} of {a_ground} background": 8,
    "There is {a_sized} {where} of the picture, with {ground} in the background.": 5,
    "A picture of {a_item} painted on {ground}": 5,
    "Abstract drawing with {a_sized} {where} and {bare} behind it": 5,
    "Geometric background with {a_item} on {ground}, vector, {pixels}": 5,
    "The {colour} {shape} stands out against {ground}": 4,
    "Close-up of {a_item} in front of {ground}": 4,
    "{colour} {shape} with {bare}, free wallpaper {pixels}": 4,
    "{brand} {colour} {shape} art print on {ground_colour} {kind} paper, {print} cm": 5,
    "{brand} poster No {number}: {item} and {bare}": 4,
    "{colour} {shape} sticker, pack of {number}, {bare} design by {brand}": 4,
    "{item}, {bare}, abstract, geometric, pattern": 5,
    "{shape}, {colour}, {ground_colour}, {kind}, background, texture": 3,
    "How to draw {a_item} on {ground}, step {number}": 3,
    "Why {a_item} works so well on {ground}": 2,
    "My {year} painting with the {colour} {shape} {where}, {bare} all around": 3,
    "Handmade card with {a_item} and {bare}": 3,
    "Lesson {number}: find the {colour} {shape} on the {ground_colour} {kind} wall": 2,
}

# Captions for scenes of two or three shapes.
MANY: dict[str, float] = {
    "{a_all} on {ground}": 9,
    "{relation} on {ground}": 10,
    "{relation}, and {ground} in the background": 5,
    "The picture shows {relation} on {a_ground} background.": 6,
    "{count} shapes on {ground}: {all}": 6,
    "{all}, {bare}, flat design, geometric": 5,
    "Composition with {a_all} on {ground}, {year}": 5,
    "{brand} puzzle for children with {count} pieces: {all} on {ground}": 3,
    "Set of {count} shapes ({shapes}) on {ground}": 4,
    "Poster with {a_all} by {brand}, {print} cm": 4,
}

# What sites add to a caption.
TAILS: dict[str, float] = {
    "": 64,
    " – stock illustration": 6,
    " – stock photo": 3,
    " | {brand}": 6,
    " - photo by {person}": 5,
    " © {person} {year}": 4,
    ", {year}": 3,
    " (image {number})": 3,
    " - buy online at {brand}": 3,
    " #{number}": 2,
    " [HD]": 2,
    " royalty free image {number}": 2,
}

BRANDS = ("Papermoth", "Halden & Voss", "Tintery", "Nordwall", "Lumo Prints", "Quillbox", "Marabo", "Fenwick Arts")
PEOPLE = ("Ines Falkner", "Tomas Ridley", "A. Morrow", "Yuki Tanabe", "Petra Lindqvist", "Sam Oduya", "Clara Venn")
PRINTS = ("20 x 30", "30 x 40", "50 x 70", "21 x 21")
PIXELS = ("1920x1080", "1024x768", "4K", "800x600")
COUNTS = ("", "one", "two", "three")

BOILERPLATE = (
    "IMG_{number:04}.jpg",
    "DSC_{number:04}.JPG",
    "buy now",
    "untitled",
    "image",
    "click to enlarge",
    "Click here to view the full size image",
    "photo",
    "thumbnail",
    "image {number}",
    "add to cart",
    "picture-{number}.png",
    "no description available",
    "logo",
    "Loading image, please wait",
    "slide {number} of 12",
    "share on social media",
    "product image placeholder",
)

# Parts of the made-up URLs.
SECTIONS = ("art", "shop/prints", "img", "media/2019", "gallery/abstract", "wp-content/uploads", "p", "static/catalog")

# Words that stand between the fields of a caption, for the metadata.
GRAMMAR = _split(
    "a, A, an, An, the, The, on, On, in, at, of, to, and, with, above, below, left, right, top, bottom, center, small, "
    "large, one, two, Two, three, Three, grey, Grey"
)

NOT_FOUND_PAGE = b"""<!DOCTYPE html>
<html><head><title>404 Not Found</title></head>
<body><h1>Not Found</h1><p>The picture that you asked for has moved.</p></body></html>
"""

# Entries of the metadata that no caption of the demo holds: the part of a real metadata list that never matches.
DECOYS = _split(
    "accordion, alpine meadow, anchovy, aqueduct, badger, ballroom, barley, basalt, beekeeper, birch forest, "
    "bobsleigh, bonfire, bulldozer, cactus, canoe, caravan, cathedral, cauliflower, chess club, chimney sweep, "
    "cinnamon, clarinet, comet, coral reef, crocus, crossbow, dahlia, dentist, desert fox, dolphin, dragonfly, "
    "dune, earthworm, eclipse, espresso, falcon, ferry, fiddle, fishing village, fjord, flamingo, garlic, geyser, "
    "giraffe, glacier, gondola, grape, hammock, harbour town, harvest, hedgehog, helicopter, honey, iceberg, igloo, "
    "jellyfish, kayak, kettle, kingfisher, kite festival, ladder, lagoon, lantern, lemonade, lighthouse, llama, "
    "lobster, locomotive, magpie, mandolin, mango, marathon, microscope, monsoon, moose, mountain hut, mushroom soup, "
    "narwhal, nettle, oasis, octopus, olive grove, orchestra, otter, oyster, paddle steamer, parachute, peacock, "
    "pelican, penguin, piano, pine cone, plough, porcelain, pumpkin, quarry, quilt, raccoon, railway bridge, reindeer, "
    "rhubarb, rocket, rowing boat, saffron, sailor, salmon, sandcastle, saxophone, scarecrow, seahorse, shepherd, "
    "sleigh, snow leopard, sparrow, spinach, squirrel, steam engine, submarine, sunflower, swan, telescope, "
    "thunderstorm, toboggan, tractor, trombone, tulip field, turtle, umbrella, vineyard, violin, volcano, walnut, "
    "walrus, waterfall, weasel, whale, windmill, yoghurt, zebra"
)


@dataclass(frozen=True)
class Language:
    """Alt-text in another language: words in the order of `SHAPES` and `COLOURS`, in the forms its templates need."""

    shapes: tuple[str, ...]
    colours: tuple[str, ...]
    templates: tuple[str, ...]


def _language(shapes: str, colours: str, *templates: str) -> Language:
    return Language(_split(shapes), _split(colours), templates)


LANGUAGES = {
    "de": _language(
        "ein Kreis, ein Quadrat, ein Stern, ein Dreieck, ein Herz, eine Raute, ein Kreuz, ein Ring, ein Sechseck, "
        "ein Pfeil, eine Mondsichel, ein Fünfeck",
        "Rot, Blau, Gelb, Grün, Weiß, Schwarz, Orange, Violett, Rosa, Grau, Braun, Petrol",
        "{shape} in {colour} vor einem gemusterten Hintergrund, Bild zum Herunterladen",
        "Schönes Poster für das Wohnzimmer: {shape} in {colour}, gedruckt auf dickem Papier",
    ),
    "fr": _language(
        "un cercle, un carré, une étoile, un triangle, un cœur, un losange, une croix, un anneau, un hexagone, "
        "une flèche, un crocus, un pentagone",
        "rouge, bleue, jaune, verte, blanche, noire, orange, violette, rose, grise, marron, turquoise",
        "dessin avec {shape} de couleur {colour} sur un fond à motifs, image libre de droits",
        "{shape} de couleur {colour} pour la décoration de votre salon, affiche à imprimer",
    ),
    "es": _language(
        "un círculo, un cuadrado, una estrella, un triángulo, un corazón, un rombo, una cruz, un anillo, "
        "un hexágono, una flecha, una media luna, un pentágono",
        "rojo, azul, amarillo, verde, blanco, negro, naranja, morado, rosa, gris, marrón, turquesa",
        "ilustración de {shape} de color {colour} sobre un fondo con dibujos, lista para descargar",
        "{shape} de color {colour} en una lámina decorativa para la pared de tu casa",
    ),
    "it": _language(
        "un cerchio, un quadrato, una stella, un triangolo, un cuore, un rombo, una croce, un anello, un esagono, "
        "una freccia, una mezzaluna, un pentagono",
        "rosso, blu, giallo, verde, bianco, nero, arancione, viola, rosa, grigio, marrone, turchese",
        "disegno con {shape} di colore {colour} su uno sfondo decorato, immagine da scaricare",
        "{shape} di colore {colour} per il manifesto della tua cucina, stampato su carta spessa",
    ),
    "pl": _language(
        "koło, kwadrat, gwiazda, trójkąt, serce, romb, krzyż, pierścień, sześciokąt, strzałka, półksiężyc, pięciokąt",
        "czerwonym, niebieskim, żółtym, zielonym, białym, czarnym, pomarańczowym, fioletowym, różowym, szarym, "
        "brązowym, turkusowym",
        "{shape} w kolorze {colour} na tle ze wzorem, grafika do pobrania za darmo",
        "plakat do pokoju: {shape} w kolorze {colour}, wydruk na grubym papierze",
    ),
    "tr": _language(
        "daire, kare, yıldız, üçgen, kalp, baklava dilimi, artı, halka, altıgen, ok, hilal, beşgen",
        "kırmızı, mavi, sarı, yeşil, beyaz, siyah, turuncu, mor, pembe, gri, kahverengi, turkuaz",
        "desenli bir zemin üzerinde {colour} renkli bir {shape}, ücretsiz indirilebilir çizim",
        "oturma odanız için {colour} renkli {shape} baskılı duvar afişi",
    ),
    "ru": _language(
        "круг, квадрат, звезда, треугольник, сердце, ромб, крест, кольцо, шестиугольник, стрелка, полумесяц, "
        "пятиугольник",
        "красного, синего, жёлтого, зелёного, белого, чёрного, оранжевого, фиолетового, розового, серого, "
        "коричневого, бирюзового",
        "{shape} {colour} цвета на узорном фоне, рисунок для печати",
        "скачать картинку: {shape} {colour} цвета, обои на рабочий стол",
    ),
    "ar": _language(
        "دائرة, مربع, نجمة, مثلث, قلب, معين, صليب, حلقة, شكل سداسي, سهم, هلال, شكل خماسي",
        "الأحمر, الأزرق, الأصفر, الأخضر, الأبيض, الأسود, البرتقالي, البنفسجي, الوردي, الرمادي, البني, الفيروزي",
        "صورة {shape} باللون {colour} على خلفية مزخرفة للتحميل مجانا",
        "ملصق جميل فيه {shape} باللون {colour} لتزيين جدران البيت",
    ),
    "zh": _language(
        "圆形, 正方形, 星形, 三角形, 心形, 菱形, 十字形, 圆环, 六边形, 箭头, 月牙形, 五边形",
        "红色, 蓝色, 黄色, 绿色, 白色, 黑色, 橙色, 紫色, 粉色, 灰色, 棕色, 青色",
        "这是一张{colour}的{shape}图片，背景带有花纹，可以免费下载使用",
        "一个{colour}的{shape}画在有花纹的背景上，适合做手机壁纸",
    ),
    "ja": _language(
        "円, 正方形, 星, 三角形, ハート, ひし形, 十字, リング, 六角形, 矢印, 三日月, 五角形",
        "赤色, 青色, 黄色, 緑色, 白色, 黒色, オレンジ色, 紫色, ピンク色, 灰色, 茶色, 青緑色",
        "模様のある背景に描かれた{colour}の{shape}のイラスト素材です",
        "{colour}の{shape}をデザインしたポスター、お部屋のインテリアにおすすめ",
    ),
}
