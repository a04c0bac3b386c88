# SPDX-License-Identifier: MIT
"""embed.py NAME FILE OUT: writes a C file that holds FILE as `const char NAME[]`."""
import sys

name, source, out = sys.argv[1:]
with open(source, 'rb') as f:
    text = f.read()
lines = [', '.join(str(byte) for byte in text[i:i + 20]) for i in range(0, len(text), 20)]
with open(out, 'w') as f:
    f.write(f'extern const char {name}[];\nconst char {name}[] = {{\n\t' + ',\n\t'.join([*lines, '0']) + '\n};\n')
