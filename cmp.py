import glob,os
from safetensors.torch import load_file
import torch
for d in sorted(glob.glob('/tmp/mkc/ours/*')):
    n=os.path.basename(d)
    a={k:v for f in glob.glob(d+'/*.safetensors') for k,v in load_file(f).items()}; b={k:v for f in glob.glob(f'/tmp/mkc/theirs/{n}/*.safetensors') for k,v in load_file(f).items()}
    if not b: print(n,'no theirs'); continue
    if set(a)!=set(b): print(n,'names',sorted(set(a)^set(b))[:3],len(a),len(b)); continue
    worst=max(((a[k].float()-b[k].float()).abs().max().item(),k) for k in a); same=sum(torch.equal(a[k],b[k]) for k in a)
    print(f'{n:20s} {worst[0]:.2e} {worst[1]} equal {same}/{len(a)} {set(v.dtype for v in a.values())} {set(v.dtype for v in b.values())}')
