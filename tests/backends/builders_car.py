"""The beginning of IPLD's fixture carv1-basic (header and three raw blocks), retyped from the CARv1 specification."""

from __future__ import annotations

SPEC_ROOTS = ["bafyreihyrpefhacm6kkp4ql6j6udakdit7g3dmkzfriqfykhjw6cad5lrm", "bafyreidj5idub6mapiupjwjsyyxhyhedxycv4vihfsicm2vt46o7morwlm"]
SPEC_CAR = bytes.fromhex(
    "63a265726f6f747382d82a58250001711220f88bc853804cf294fe417e4fa83028689fcdb1b1592c5102e1474dbc200fab8bd82a5825000171122069ea0740"
    "f9807a28f4d932c62e7c1c83be055e55072c90266ab3e79df63a365b6776657273696f6e01"
    "280155122061be55a8e2f6b4e172338bddf184d6dbee29c98853e0a0485ecee7f27b9af0b461616161"
    "280155122081cc5b17018674b401b42f35ba07bb79e211239c23bffe658da1577e3e64687762626262"
    "2801551220b6fbd675f98e2abd22d4ed29fdc83150fedc48597e92dd1a7a24381d44a2745163636363"
)
SPEC_CIDV0_SECTION = bytes.fromhex(
    "511220e7dc486e97e6ebe5cdabab3e392bdad128b6e09acc94bb4e2aa2af7b986d24d0122d0a240155122061be55a8e2f6b4e172338bddf184d6dbee29c9"
    "8853e0a0485ecee7f27b9af0b412036361741804"
)
