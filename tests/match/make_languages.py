"""Make curate/match/languages.parquet: `pip install langcodes language_data`, then `python -m tests.match.make_languages`.

The rule, in this order; a code that has no row has no key, and its texts are looked up in `other`'s entries.

1. The 176 labels of lid.176, which are names of Wikipedias of its time. The key is the label where a Wikipedia of that
   name exists. It is the part before the first "_" of the Wikipedia's name where it was renamed (yue: zh_yue, so zh),
   as MetaCLIP 2 makes keys. It is `other` where that part is no label (cbk: cbk_zam) or the Wikipedia is gone (lrc).
2. The language's other names in ISO 639-1, -2 and -3, retired ones too (eng, ger, deu, iw); members of a macrolanguage
   (cmn, arb, nob) and what CLDR takes for one (gsw: als, as the label means Alemannic) have its key; but a code that a
   Wikipedia of its own has is no other's (gan has no key).
3. nan: zh_min_nan, in Latin script, which MetaCLIP 2 takes for zh; metadata of mode `worldwide` has no such key.

Names are CLDR's, in English.
"""

import re
from pathlib import Path

import langcodes  # type: ignore[import-not-found]
import pyarrow as pa
import pyarrow.parquet as pq
from langcodes.registry_parser import parse_registry  # type: ignore[import-not-found]

LABELS = """
af als am an ar arz as ast av az azb ba bar bcl be bg bh bn bo bpy br bs bxr ca cbk ce ceb ckb co cs cv cy da de diq dsb
dty dv el eml en eo es et eu fa fi fr frr fy ga gd gl gn gom gu gv he hi hif hr hsb ht hu hy ia id ie ilo io is it ja
jbo jv ka kk km kn ko krc ku kv kw ky la lb lez li lmo lo lrc lt lv mai mg mhr min mk ml mn mr mrj ms mt mwl my myv mzn
nah nap nds ne new nl nn no oc or os pa pam pfl pl pms pnb ps pt qu rm ro ru rue sa sah sc scn sco sd sh si sk sl so sq
sr su sv sw ta te tg th tk tl tr tt tyv ug uk ur uz vec vep vi vls vo wa war wuu xal xmf yi yo yue zh
"""
KEYS = {"yue": "zh", "cbk": "other", "lrc": "other"}
# Names of Wikipedias that are no label: their languages have no key, whatever macrolanguage they belong to.
WIKIPEDIAS = """
ab ace ady alt ami ang anp arc ary atj avk awa ay ban bbc bew bi bjn blk bm bug cdo ch chr chy cr crh csb cu dag dga din
dtp dz ee ext fat ff fj fo fon frp fur gag gan gcr glk gor got gpe guc gur guw ha hak haw hyw ig igl ik inh iu jam kaa
kab kbd kbp kcg kg ki kl koi ks ksh kus lad lbe lfn lg lij lld ln ltg mad mdf mi mni mnw mnc nia nov nqo nrm nso nv ny olo
om pag pap pcd pcm pdc pi pih pnt pwn rmy rn rw sat se sg shi shn skr sm smn sn srn ss st stq szl szy tay tcy ti tet tly
tn to tpi trv ts tum tw ty udm ve wo xh za zea zgh zu
"""
NAMES = {"als": "Alemannic", "bh": "Bihari", "eml": "Emilian-Romagnol", "nah": "Nahuatl", "mhr": "Meadow Mari"}
ALIASES = {"gsw": "als", "nb": "no", "nob": "no", "fil": "tl", "bho": "bh", "lzh": "zh", "egl": "eml", "rgn": "eml"}
ALIASES |= {"chm": "mhr", "scc": "sr", "scr": "hr", "jw": "jv", "prs": "fa", "hbs": "sh", "bih": "bh", "tgl": "tl"}
OUT = Path(__file__).parents[2] / "curate/match/languages.parquet"
WITHOUT_SPACES = {"bo", "ja", "km", "lo", "my", "th", "zh"}  # of MetaCLIP 2's, those that are keys


def candidates():
    """Every two and three letter code of the registry of BCP 47, and those of ISO 639-2 and -3 that CLDR replaces."""
    from langcodes.data_dicts import LANGUAGE_ALPHA3, LANGUAGE_ALPHA3_BIBLIOGRAPHIC, LANGUAGE_REPLACEMENTS  # type: ignore[import-not-found]

    codes = {*LANGUAGE_REPLACEMENTS, *LANGUAGE_ALPHA3.values(), *LANGUAGE_ALPHA3_BIBLIOGRAPHIC.values()}
    codes |= {str(item["Subtag"]) for item in parse_registry() if item["Type"] == "language"}
    return sorted(code for code in codes if re.fullmatch("[a-z]{2,3}", code))


def main():
    """Write the table."""
    labels, wikipedias = set(LABELS.split()), set(WIKIPEDIAS.split())
    rows = {label: KEYS.get(label, label) for label in labels}
    for code in candidates():
        if code not in rows and code not in wikipedias:
            standard = ALIASES.get(code) or langcodes.standardize_tag(code, macro=True)
            if standard in labels:
                rows[code] = KEYS.get(standard, standard)
    rows |= {code: KEYS.get(label, label) for code, label in ALIASES.items()} | {"nan": "zh_min_nan"}
    codes = sorted(rows)
    names = [NAMES.get(code) or langcodes.get(code).display_name() for code in codes]
    spaces = [rows[code] not in WITHOUT_SPACES for code in codes]
    columns = {"code": codes, "key": [rows[code] for code in codes], "name": names, "spaces": spaces}
    pq.write_table(pa.table(columns), OUT, compression="zstd", store_schema=False)
    print(f"{len(codes)} codes, {len(set(rows.values()))} keys")


if __name__ == "__main__":
    main()
